"""`/api/v1/organization`."""

from typing import Annotated

from fastapi import Response, Security

from shared.auth import CurrentUser, bearer
from shared.http.bounds import of_kind
from shared.http.routing import api_router
from twins.account import service
from twins.bounds import NO
from twins.context import Ctx
from twins.erasure.models import ERASED, erased
from twins.scopes import ERASE

router = api_router("/organization", "organization")


@router.delete("", status_code=202, response_class=Response, responses=ERASED)
@of_kind(NO)
async def delete_organization(user: Annotated[CurrentUser, Security(bearer, scopes=[ERASE])], ctx: Ctx) -> Response:
    """Erase all twins of the organisation that your token names.

    From the answer on, its twins are gone; a job removes the data, and `Location` leads to its progress. Consents that
    its members gave for twins of others stay theirs. Asked again, the answer is the same until the job is complete,
    and then 204.
    """
    return erased(*await service.erase_organization(ctx, user))
