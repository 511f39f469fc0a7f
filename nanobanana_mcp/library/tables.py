"""The tables, as the newest migration leaves them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Dialect, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import BigInteger, TypeDecorator


class Moment(TypeDecorator[datetime]):
    """An instant as whole milliseconds since 1970 UTC: sorts, subtracts and survives every time zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value.timestamp() * 1000)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value / 1000, UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

images = Table(
    "images",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("origin", String, nullable=False),
    Column("path", Text, index=True),
    Column("thumbnail_path", Text),
    Column("mime_type", String, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False, index=True),
    Column("prompt", Text),
    Column("mode", String),
    Column("tier", String),
    Column("model_id", String),
    Column("backend", String),
    Column("call_id", String, index=True),
    Column("trash_path", Text),
    Column("words", Text),
)
Index(
    "ix_images_shown",
    images.c.created_at,
    images.c.id,
    images.c.origin,
    images.c.tier,
    images.c.mode,
    images.c.backend,
    images.c.trash_path,
)
"""The newest first, and all that most filters ask, without reading the rows."""

Index("ix_images_derived", images.c.created_at, sqlite_where=images.c.origin == "derived")

image_sources = Table(
    "image_sources",
    metadata,
    Column("image_id", String, ForeignKey("images.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent_id", String, ForeignKey("images.id"), nullable=False, index=True),
    Column("role", String, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String, primary_key=True),
    Column("image_id", String, ForeignKey("images.id"), nullable=False, index=True),
    Column("name", String, nullable=False, unique=True),
    Column("uri", Text),
    Column("mime_type", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("display_name", Text),
    Column("state", String, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, index=True),
    Column("backend", String, nullable=False),
    Column("error", Text),
)

requests = Table(
    "requests",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("process", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("backend", String, nullable=False),
    Column("plan", Text, nullable=False),
    Column("fingerprint", String, nullable=False, index=True),
    Column("idempotency_key", String, unique=True),
    Column("delivered_at", Moment),
)

calls = Table(
    "calls",
    metadata,
    Column("id", String, primary_key=True),
    Column("request_id", String, ForeignKey("requests.id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("estimate_usd", Float, nullable=False),
    Column("cost_usd", Float),
    Column("reserved_at", Moment, nullable=False, index=True),
    Column("sent_at", Moment),
    Column("settled_at", Moment),
    Column("image_id", String),
    Column("reason", String),
    Column("message", Text),
)
Index("ix_calls_open", calls.c.state, sqlite_where=calls.c.state.in_(("reserved", "sent", "spooled", "saved")))

Index("ix_calls_unknown", calls.c.reserved_at, sqlite_where=calls.c.state == "unknown")

spent = Table(
    "spent",
    metadata,
    Column("backend", String, primary_key=True),
    Column("span", Integer, primary_key=True),
    Column("start", Moment, primary_key=True),
    Column("latest", Moment, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("microusd", BigInteger, nullable=False),
    Column("seen_at", Moment),
    sqlite_with_rowid=False,
)
"""The sums of the calls of each second, minute and day (`span`, in milliseconds), and when the latest of them was reserved.

Triggers of migration 0005 keep it, so that it is right whichever version of the program writes: a step that rebuilds
`calls` has to make them again. `seen_at`, here and in policy_calls, is when the clock, after it was last set back, first
saw an entry ahead of it, which keeps its date.
"""

clock = Table("clock", metadata, Column("id", Integer, primary_key=True), Column("at", Moment, nullable=False))
"""Row 1: where the clock stood when somebody last reserved a call (or, 2**40 further on, used a policy's limit). On
Linux one more row whose number stands for this run of the system: when it began, by this clock.
"""

policy_calls = Table(
    "policy_calls",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rule", String, nullable=False),
    Column("made_at", Moment, nullable=False),
    Column("seen_at", Moment),
)
Index("ix_policy_calls_rule", policy_calls.c.rule, policy_calls.c.made_at)

days = Table(
    "days",
    metadata,
    Column("day", String, primary_key=True),
    Column("backend", String, primary_key=True),
    Column("tier", String, primary_key=True),
    Column("mode", String, primary_key=True),
    Column("pictures", Integer, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    Column("usd", Float, nullable=False, default=0.0),
)

annotations = Table(
    "annotations",
    metadata,
    Column("image_id", String, ForeignKey("images.id"), primary_key=True),
    Column("note", Text),
    Column("rating", Integer, index=True),
)

tags = Table(
    "tags",
    metadata,
    Column("tag", String, primary_key=True),
    Column("image_id", String, ForeignKey("images.id"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("image_id", String, nullable=False, unique=True),
    Column("gone", Integer, nullable=False),
    sqlite_autoincrement=True,
)
"""The latest change of each picture, in the order in which they were made; `gone` is 1 for one that was deleted for good.

Triggers of migration 0006 keep it, so that it is right whichever version of the program writes: a step that rebuilds
`images`, `annotations` or `tags` has to make them again.
"""
