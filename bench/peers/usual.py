"""The usual service: FastAPI, SQLAlchemy 2's async ORM and python-jose, in the style of the full-stack template.

A session and the current user are dependencies, models are mapped classes, answers go through
`response_model`. Kinder than the template in one thing: the token's subject is the owner, so that no
user is loaded from the database on each request.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ARRAY, DateTime, FetchedValue, ForeignKey, Text, and_, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from twins.consent.ledger import Chain
from twins.consent.models import BOOLEAN_NOTICE

GENERAL = "general"

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
    version: Mapped[int] = mapped_column(default=1)
    persona_version: Mapped[int] = mapped_column(default=0)
    salt: Mapped[bytes]
    ledger_seq: Mapped[int] = mapped_column(default=0)
    ledger_hash: Mapped[bytes] = mapped_column(default=bytes(32))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    general: Mapped["ConsentRow | None"] = relationship(
        secondary="consent_states",
        secondaryjoin="and_(StateRow.consent_id == ConsentRow.id, StateRow.purpose == 'general')",
        viewonly=True,
        lazy="joined",
    )

    @property
    def consent(self) -> bool:
        return reason_of(self.general) == "granted"


class ConsentRow(Base):
    __tablename__ = "consents"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"))
    lineage: Mapped[UUID]
    principal: Mapped[str]
    method: Mapped[str]
    purposes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    notice_version: Mapped[str]
    notice_language: Mapped[str]
    notice_text: Mapped[str]
    notice_sha256: Mapped[bytes]
    given_at: Mapped[datetime]
    not_before: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]


class StateRow(Base):
    __tablename__ = "consent_states"

    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"), primary_key=True)
    purpose: Mapped[str] = mapped_column(primary_key=True)
    consent_id: Mapped[UUID] = mapped_column(ForeignKey("consents.id"))


class EventRow(Base):
    __tablename__ = "consent_events"

    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    event: Mapped[str]
    hash: Mapped[bytes]


class PersonaVersionRow(Base):
    __tablename__ = "persona_versions"

    twin_id: Mapped[UUID] = mapped_column(ForeignKey("twins.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[UUID]
    created_at: Mapped[datetime]


def reason_of(consent: ConsentRow | None) -> str:
    now = datetime.now(UTC)
    if consent is None:
        return "no_consent"
    if consent.withdrawn_at is not None:
        return "withdrawn"
    if consent.expires_at is not None and consent.expires_at <= now:
        return "expired"
    if consent.not_before is not None and consent.not_before > now:
        return "not_yet_valid"
    return "granted"


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


class TwinPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    twin_name: str
    use_case: str
    tone: str
    consent: bool
    created_at: datetime
    updated_at: datetime


class TwinsPublic(BaseModel):
    items: list[TwinPublic]
    next_cursor: UUID | None


class DecisionPublic(BaseModel):
    decision: bool
    purpose: str
    reason: str
    consent_id: UUID | None
    expires_at: datetime | None
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
        select(TwinRow.id, ConsentRow)
        .outerjoin(StateRow, and_(StateRow.twin_id == TwinRow.id, StateRow.purpose == purpose))
        .outerjoin(ConsentRow, ConsentRow.id == StateRow.consent_id)
        .where(TwinRow.id == twin_id, TwinRow.owner == current_user)
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Twin not found")
    consent = found.ConsentRow
    reason = reason_of(consent)
    return DecisionPublic(
        decision=reason == "granted",
        purpose=purpose,
        reason=reason,
        consent_id=consent.id if consent else None,
        expires_at=consent.expires_at if consent else None,
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
    now = datetime.now(UTC)
    twin = TwinRow(
        owner=current_user,
        salt=secrets.token_bytes(32),
        created_at=now,
        updated_at=now,
        **body.model_dump(exclude={"consent"}),
    )
    session.add(twin)
    await session.flush()
    if body.consent:
        consent_id = uuid4()
        consent = ConsentRow(
            id=consent_id,
            twin_id=twin.id,
            lineage=consent_id,
            principal=current_user,
            method="api",
            purposes=[GENERAL],
            notice_version=BOOLEAN_NOTICE.version,
            notice_language=BOOLEAN_NOTICE.language,
            notice_text=BOOLEAN_NOTICE.text,
            notice_sha256=hashlib.sha256(BOOLEAN_NOTICE.text.encode()).digest(),
            given_at=now,
        )
        session.add(consent)
        await session.flush()
        session.add(StateRow(twin_id=twin.id, purpose=GENERAL, consent_id=consent.id))
        chain = Chain(twin.id, twin.salt, 0, twin.ledger_hash)
        event, digest = chain.add("given", current_user, now, consent_id=str(consent.id))
        session.add(EventRow(twin_id=twin.id, seq=chain.seq, event=event, hash=digest))
        twin.ledger_seq, twin.ledger_hash, twin.version = chain.seq, digest, 2
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
