"""The base of every contract: canonical bytes, schema versions, tolerant reading.

Invariants: a document names its schema as ``escapement.<name>/<major>.<minor>``; unknown fields are kept and
written back; an unknown major version is refused; canonical bytes are the same on every machine.
"""

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, lower-case hexadecimal")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def _utc_only(value: datetime) -> datetime:
    if value.utcoffset():
        raise ValueError("time must be in UTC")
    return value


Utc = Annotated[AwareDatetime, AfterValidator(_utc_only)]


def sha256_hex(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; NaN and infinities are refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Part(BaseModel):
    """A frozen piece of a contract. Unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)


def _say_all(value: Any) -> None:
    """Mark every field of a part, and of the parts within it, as said."""
    if isinstance(value, Part):
        value.__pydantic_fields_set__.update(type(value).model_fields)
        for name in type(value).model_fields:
            _say_all(getattr(value, name))
    elif isinstance(value, dict):
        _say_all(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            _say_all(one)


class Contract(Part):
    """A versioned document. Subclasses set ``SCHEMA`` (``escapement.verdict/1.0``)."""

    SCHEMA: ClassVar[str]

    schema_: str = Field(default="", alias="schema")

    @model_validator(mode="before")
    @classmethod
    def _check_schema(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = data.get("schema", data.get("schema_", "")) or cls.SCHEMA
        name, _, version = str(given).partition("/")
        own_name, _, own_version = cls.SCHEMA.partition("/")
        if name != own_name:
            raise ValueError(f"this is a {name!r} document, expected {own_name!r}")
        if version.partition(".")[0] != own_version.partition(".")[0]:
            raise ValueError(
                f"{name} version {version!r} is not readable here (this program reads {own_version}): update this program"
            )
        return {k: v for k, v in data.items() if k != "schema_"} | {"schema": given}

    @model_validator(mode="wrap")
    @classmethod
    def _spell_out(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """A document made here says all its values; one that was read (it names its schema) keeps to what it said."""
        made = validate(data)
        if isinstance(data, dict) and not {"schema", "schema_"} & data.keys():
            _say_all(made)
        return made

    def canonical(self) -> bytes:
        """The canonical bytes: what is hashed, signed and stored.

        A document that was read gives the bytes it was read from, also where this program knows fields it does not have.
        """
        return canonical_json(self.model_dump(mode="json", exclude_unset=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return sha256_hex(self.canonical())

    @classmethod
    def parse(cls, data: bytes | str) -> Self:
        """Read a document from JSON. Raises ``pydantic.ValidationError``."""
        return cls.model_validate_json(data)
