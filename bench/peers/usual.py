"""The usual service: FastAPI, SQLAlchemy 2's async ORM and python-jose, in the style of the full-stack template.

A session and the current user are dependencies, models are mapped classes, answers go through
`response_model`. One thing makes it faster than the template: the token's subject is the owner, so that
no request loads a user from the database.
"""

import contextlib
import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ARRAY, DateTime, FetchedValue, ForeignKey, Text, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, noload, relationship

from twins.consent.models import BOOLEAN_NOTICE

GENERAL = "general"
ASSURANCE = ("recorded", "link", "token")

engine = create_async_engine(os.environ["POSTGRES_DSN"].replace("postgresql://", "postgresql+asyncpg://"))
new_session = async_sessionmaker(engine, expire_on_commit=False)


# --- Tables -----------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    type_annotation_map = {str: Text(), datetime: DateTime(timezone=True)}


class TwinRow(Base):
    __tablename__ = "twins"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=FetchedValue())
    owner: Mapped[str]
    twin_name: Mapped[str]
    use_case: Mapped[str]
    tone: Mapped[str]
    principals: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    stop_seq: Mapped[int | None] = mapped_column(server_default=FetchedValue())
    version: Mapped[int] = mapped_column(server_default=FetchedValue())
    persona_version: Mapped[int] = mapped_column(server_default=FetchedValue())
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    updated_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    general: Mapped["StateRow | None"] = relationship(
        primaryjoin="and_(StateRow.twin_id == TwinRow.id, StateRow.purpose == 'general')", viewonly=True, lazy="joined"
    )

    external_ids: Mapped[list["ExternalIdRow"]] = relationship(
        viewonly=True, lazy="selectin", order_by="ExternalIdRow.place"
    )

    @property
    def consent(self) -> bool:
        return reason_of(self, self.general) == "granted"


class StateRow(Base):
    __tablename__ = "consent_states"

    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"), primary_key=True)
    purpose: Mapped[str] = mapped_column(primary_key=True)
    consent_id: Mapped[UUID | None]
    seq: Mapped[int | None]
    no: Mapped[str | None]
    assurance: Mapped[int | None]
    not_before: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    recipients: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    modalities: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    territories: Mapped[list[str] | None] = mapped_column(ARRAY(Text))


class ExternalIdRow(Base):
    __tablename__ = "external_ids"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"))
    type: Mapped[str]
    id: Mapped[str]
    place: Mapped[int]


class PersonaVersionRow(Base):
    __tablename__ = "persona_versions"

    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[UUID]
    created_at: Mapped[datetime]


def reason_of(twin: TwinRow, state: StateRow | None) -> str:  # noqa: PLR0911 - a case each
    now = datetime.now(UTC)
    if state is not None and state.no is not None:
        return state.no
    if twin.stop_seq is not None and (state is None or (state.seq or 0) <= twin.stop_seq):
        return "refused"
    if state is None or state.consent_id is None:
        return "no_consent"
    if state.expires_at is not None and state.expires_at <= now:
        return "expired"
    if state.not_before is not None and state.not_before > now:
        return "not_yet_valid"
    # The owner asks, for itself, and names neither.
    if state.modalities is not None:
        return "modality_not_covered"
    return "granted" if state.territories is None else "territory_not_covered"


# --- Schemas ----------------------------------------------------------------------------------------


class TwinCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    twin_name: str = Field(min_length=1, max_length=100)
    use_case: str = Field(min_length=1, max_length=200)
    tone: str = Field(min_length=1, max_length=200)
    consent: bool


class TwinUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    twin_name: str | None = Field(None, min_length=1, max_length=100)
    use_case: str | None = Field(None, min_length=1, max_length=200)
    tone: str | None = Field(None, min_length=1, max_length=200)


class ExternalIdPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    type: str
    id: str


class TwinPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    twin_name: str
    use_case: str
    tone: str
    principals: list[str]
    external_ids: list[ExternalIdPublic]
    consent: bool
    created_at: datetime
    updated_at: datetime


class TwinsPublic(BaseModel):
    items: list[TwinPublic]
    next_cursor: UUID | None


class RecipientPublic(BaseModel):
    type: str
    id: str
    issuer: str | None = None


class DecisionPublic(BaseModel):
    decision: bool
    purpose: str
    reason: str
    consent_id: UUID | None
    expires_at: datetime | None
    assurance: str | None
    recipient: RecipientPublic
    evaluated_at: datetime


class Style(BaseModel):
    formality: str | None = None
    verbosity: str | None = None
    humor: str | None = None
    emoji: str | None = None


class Fact(BaseModel):
    text: str
    source: str | None = None


class Example(BaseModel):
    user: str
    twin: str


class PersonaIn(BaseModel):
    summary: str | None = None
    greeting: str | None = None
    languages: list[str] = []
    traits: list[str] = []
    style: Style = Style()
    boundaries: list[str] = []
    facts: list[Fact] = []
    examples: list[Example] = []
    extensions: dict[str, Any] = {}


class PersonaPublic(PersonaIn):
    version: int
    created_at: datetime


# --- Dependencies -----------------------------------------------------------------------------------

oauth2 = OAuth2PasswordBearer(tokenUrl="/login")


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


def get_current_user(token: Annotated[str, Depends(oauth2)]) -> str:
    try:
        payload = jwt.decode(token, os.environ["JWT_SECRETS"], algorithms=["HS256"])
    except JWTError:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Could not validate credentials") from None
    return str(payload["sub"])


def get_personas(request: Request) -> Any:
    return request.app.state.personas


SessionDep = Annotated[AsyncSession, Depends(get_session)]
CurrentUser = Annotated[str, Depends(get_current_user)]
Personas = Annotated[Any, Depends(get_personas)]


# --- Routes -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(os.environ["MONGODB_URI"], uuidRepresentation="standard")
    app.state.personas = client[os.environ["MONGODB_DATABASE"]]["personas"]
    yield
    client.close()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def load(session: AsyncSession, owner: str, twin_id: UUID, *, lock: bool = False) -> TwinRow:
    query = select(TwinRow).where(TwinRow.id == twin_id, TwinRow.owner == owner)
    twin = await session.scalar(query.with_for_update(of=TwinRow) if lock else query)
    if twin is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Twin not found")
    return twin


@app.get("/api/v1/twins/{twin_id}/decision", response_model=DecisionPublic)
async def gate(session: SessionDep, current_user: CurrentUser, twin_id: UUID, purpose: str = GENERAL) -> Any:
    query = (
        select(TwinRow, StateRow)
        .options(noload(TwinRow.general), noload(TwinRow.external_ids))
        .outerjoin(StateRow, and_(StateRow.twin_id == TwinRow.id, StateRow.purpose == purpose))
        .where(TwinRow.id == twin_id, TwinRow.owner == current_user)
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Twin not found")
    twin, state = found
    reason = reason_of(twin, state)
    return DecisionPublic(
        decision=reason == "granted",
        purpose=purpose,
        reason=reason,
        consent_id=state.consent_id if state else None,
        expires_at=state.expires_at if state else None,
        assurance=None if state is None or state.assurance is None else ASSURANCE[state.assurance],
        recipient=RecipientPublic(type="account", id=current_user),
        evaluated_at=datetime.now(UTC),
    )


@app.get("/api/v1/twins", response_model=TwinsPublic)
async def find(session: SessionDep, current_user: CurrentUser, limit: int = 20, cursor: UUID | None = None) -> Any:
    query = select(TwinRow).where(TwinRow.owner == current_user).order_by(TwinRow.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(TwinRow.id < cursor)
    twins = (await session.scalars(query)).all()
    return {"items": twins[:limit], "next_cursor": twins[limit - 1].id if len(twins) > limit else None}


@app.get("/api/v1/twins/{twin_id}", response_model=TwinPublic)
async def get(session: SessionDep, current_user: CurrentUser, twin_id: UUID, response: Response) -> Any:
    twin = await load(session, current_user, twin_id)
    response.headers["ETag"] = f'"{twin.version}.{"live" if twin.consent else "off"}"'
    return twin


@app.post("/api/v1/twins", response_model=TwinPublic, status_code=201)
async def create(session: SessionDep, current_user: CurrentUser, body: TwinCreate, response: Response) -> Any:
    twin = TwinRow(owner=current_user, **body.model_dump(exclude={"consent"}))
    session.add(twin)
    await session.flush()
    if body.consent:
        digest = hmac.digest(os.environ["DIGEST_KEY"].encode(), current_user.encode(), hashlib.sha256)
        notice = BOOLEAN_NOTICE.version, BOOLEAN_NOTICE.language, BOOLEAN_NOTICE.text
        given = func.give_consent(
            *(twin.id, current_user, current_user, current_user, digest, "api", [GENERAL]), *notice, None, None, None
        )
        await session.execute(select(given))
    await session.commit()
    await session.refresh(twin)
    response.headers["ETag"] = f'"{twin.version}.{"live" if twin.consent else "off"}"'
    return twin


@app.patch("/api/v1/twins/{twin_id}", response_model=TwinPublic)
async def patch(
    session: SessionDep, current_user: CurrentUser, twin_id: UUID, body: TwinUpdate, response: Response
) -> Any:
    twin = await load(session, current_user, twin_id, lock=True)
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(twin, name, value)
    twin.version += 1
    twin.updated_at = datetime.now(UTC)
    await session.commit()
    response.headers["ETag"] = f'"{twin.version}.{"live" if twin.consent else "off"}"'
    return twin


@app.get("/api/v1/twins/{twin_id}/persona", response_model=PersonaPublic)
async def get_persona(session: SessionDep, current_user: CurrentUser, personas: Personas, twin_id: UUID) -> Any:
    query = (
        select(PersonaVersionRow)
        .join(TwinRow, TwinRow.id == PersonaVersionRow.twin_id)
        .where(TwinRow.id == twin_id, TwinRow.owner == current_user)
        .where(PersonaVersionRow.version == TwinRow.persona_version)
    )
    version = await session.scalar(query)
    if version is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Persona not found")
    found = await personas.find_one({"_id": version.document_id, "twin_id": twin_id})
    return PersonaPublic(**found["persona"], version=version.version, created_at=version.created_at)


@app.put("/api/v1/twins/{twin_id}/persona", response_model=PersonaPublic)
async def put_persona(
    session: SessionDep, current_user: CurrentUser, personas: Personas, twin_id: UUID, body: PersonaIn
) -> Any:
    twin = await load(session, current_user, twin_id, lock=True)
    if not twin.consent:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "No consent")
    document_id, now = uuid4(), datetime.now(UTC)
    content = body.model_dump()
    await personas.insert_one(
        {"_id": document_id, "twin_id": twin_id, "persona": content, "extensions": "{}", "created_at": now}
    )
    twin.persona_version += 1
    session.add(
        PersonaVersionRow(twin_id=twin_id, version=twin.persona_version, document_id=document_id, created_at=now)
    )
    await session.commit()
    return PersonaPublic(**content, version=twin.persona_version, created_at=now)
