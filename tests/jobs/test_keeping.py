"""Keeping a picture has the same outcome however often it begins again, and loses none while any disk takes it."""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.plan import Plan, PlannedInput, Target
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.requests import Choice, ImageRequest
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.domain.wire import ModelReply, Usage
from nanobanana_mcp.gemini.response import read_reply
from nanobanana_mcp.jobs.origins import PaidCall, Reading
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.library.journal import Call, Journal, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.pixels.outputs.thumbnails import examine
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.sidecars import read_record
from nanobanana_mcp.storage.spool import Spool
from tests.support.rooms import close_all, folders, journal, order, png, record, tree


class _Read(Reading):
    """A reading of an answer that is read already."""

    def __init__(self, reply: ModelReply, threads: Executor) -> None:
        self.reply = threads.submit(lambda: reply)
        self.examined = threads.submit(examine, reply.image)


SPEC = BY_ID[DEFAULTS["flash"]]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@dataclass(kw_only=True)
class Delivery:
    """One answer on its way into the library."""

    plan: Plan
    request_row: RequestRow
    calls: tuple[Call, ...]
    places: Places
    journal: Journal
    parents: tuple[Parent, ...] = ()

    def keep(self, data: bytes | None = None, *, index: int = 0, again: bool = False) -> KeptImage:
        reply = ModelReply(image=data or png(7), text="", usage=Usage(prompt=100, image=1120), model_version=SPEC.id)
        Spool(self.places).put(self.calls[index].id, b"{}")
        paid = PaidCall(plan=self.plan, request_row=self.request_row, call=self.calls[index], parents=self.parents)
        store = PictureStore(Disk(self.places), self.library, self.journal, read_reply)
        with ThreadPoolExecutor(1) as threads:
            return store.keep(_Read(reply, threads), paid, again=again)

    @property
    def library(self) -> Library:
        return Library(self.journal.database)


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    places = folders(tmp_path)
    return _delivery(places, Target(folder=places.output))


def _delivery(
    places: Places, target: Target, *, n: int = 1, parents: tuple[Parent, ...] = (), **changes: Any
) -> Delivery:
    choice = Choice(spec=SPEC, reason="asked", auto=False, image_size="1K", grounding=False, thinking_level=None)
    plan = Plan(
        request=ImageRequest(prompt="a happy banana", n=n),
        mode="edit" if parents else "generate",
        choice=choice,
        aspect_ratio=None,
        inputs=tuple(PlannedInput(image_id=parent.image_id, role=parent.role) for parent in parents),
        target=target,
        estimate_usd=0.04,
    )
    ledger = journal(places.state)
    reserved = ledger.reserve(order(plan=plan.dump(), **changes), n=n, estimate_usd=0.04, limits=Limits())
    return Delivery(
        plan=plan,
        request_row=reserved.request_row,
        calls=reserved.calls,
        places=places,
        journal=ledger,
        parents=parents,
    )


def test_a_delivered_picture_is_on_the_disk_byte_for_byte_with_thumbnail_record_and_row(delivery: Delivery) -> None:
    kept = delivery.keep()
    assert kept.record.path is not None
    path = Path(kept.record.path)
    assert path.read_bytes() == png(7)
    assert path.parent == delivery.places.output
    assert "a-happy-banana" in path.name
    assert (kept.record.mime_type, kept.record.width, kept.record.height) == ("image/png", 24, 16)
    assert Path(str(kept.record.thumbnail_path)).stat().st_size > 0
    found = delivery.library.get(kept.record.id)
    assert found is not None
    assert (found.path, found.sha256, found.tier) == (kept.record.path, kept.record.sha256, "flash")
    assert found.call_id == delivery.calls[0].id
    assert read_record(delivery.places.records / f"{kept.record.id}.json") == kept.record
    assert kept.cost_usd == pytest.approx((100 * SPEC.input_usd + 1120 * SPEC.image_usd) / 1e6)  # type: ignore[operator]
    assert delivery.journal.cost_of(delivery.calls[0].id) == kept.cost_usd
    assert Spool(delivery.places).read(delivery.calls[0].id) is None
    assert kept.notes == ()


def test_an_edit_keeps_its_parents_in_the_row_and_in_the_record(tmp_path: Path) -> None:
    places = folders(tmp_path)
    photo, style = record(origin="imported"), record()
    parents = (Parent(image_id=photo.id, role="base"), Parent(image_id=style.id, role="reference"))
    delivery = _delivery(places, Target(folder=places.output), parents=parents)
    for one in (photo, style):
        delivery.library.add(one)
    kept = delivery.keep()
    found = delivery.library.get(kept.record.id)
    assert found is not None
    assert (found.origin, found.parents) == ("edited", parents)
    body = json.loads((places.records / f"{kept.record.id}.json").read_bytes())
    assert [parent["image_id"] for parent in body["parents"]] == [photo.id, style.id]
    assert body["cost_usd"] == kept.cost_usd


def test_bytes_that_are_no_picture_are_kept_since_they_were_paid_for(delivery: Delivery) -> None:
    kept = delivery.keep(b"neither PNG nor JPEG")
    assert Path(str(kept.record.path)).read_bytes() == b"neither PNG nor JPEG"
    assert kept.record.thumbnail_path is None
    assert kept.record.width == kept.record.height == 0
    assert delivery.library.get(kept.record.id) is not None


@pytest.mark.parametrize("killed_before", ["thumbnail", "record", "row"])
def test_what_was_cut_short_is_repeated_to_the_same_files_and_not_doubled(
    killed_before: str, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    place = {
        "thumbnail": "nanobanana_mcp.storage.sidecars.Sidecars.write_thumbnail",
        "record": "nanobanana_mcp.storage.sidecars.Sidecars.write_record",
        "row": "nanobanana_mcp.library.journal.Journal.mark_saved",
    }
    with monkeypatch.context() as patch:
        patch.setattr(place[killed_before], die)
        with pytest.raises(Killed):
            delivery.keep()
    assert Spool(delivery.places).read(delivery.calls[0].id) is not None
    kept = delivery.keep(again=True)
    pictures = [path for path in delivery.places.output.iterdir() if path.is_file()]
    assert [str(path) for path in pictures] == [kept.record.path]
    found = delivery.library.get(kept.record.id)
    assert found is not None
    assert found.path == kept.record.path
    assert len(list(delivery.places.records.iterdir())) == len(list(delivery.places.thumbnails.iterdir())) == 1
    assert Spool(delivery.places).read(delivery.calls[0].id) is None


def test_a_file_name_is_numbered_for_several_pictures_and_never_written_over(tmp_path: Path) -> None:
    places = folders(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "cat-2.png").write_text("mine")
    delivery = _delivery(places, Target(folder=folder, stem="cat", suffix=".png"), n=3)
    kept = [delivery.keep(png(index), index=index) for index in range(3)]
    assert [Path(str(one.record.path)).name for one in kept] == ["cat-1.png", "cat-2-2.png", "cat-3.png"]
    assert "already existed and was not touched" in kept[1].notes[0]
    assert (folder / "cat-2.png").read_text() == "mine"
    assert [one.notes for one in (kept[0], kept[2])] == [(), ()]


def test_a_name_in_a_format_that_is_not_written_gets_the_bytes_own_and_the_caller_is_told(tmp_path: Path) -> None:
    places = folders(tmp_path)
    kept = _delivery(places, Target(folder=places.output, stem="cat", suffix=".gif")).keep()
    assert Path(str(kept.record.path)).name == "cat.png"
    assert ".gif files cannot be written" in kept.notes[0]


def test_a_folder_that_takes_nothing_any_more_is_passed_over_and_said(tmp_path: Path) -> None:
    places = folders(tmp_path)
    (tmp_path / "gone").write_text("a file now")
    before = tree(tmp_path / "photos")
    kept = _delivery(places, Target(folder=tmp_path / "gone")).keep()
    assert Path(str(kept.record.path)).parent == places.output
    assert str(kept.record.path) in kept.notes[0]
    assert (tmp_path / "gone").read_text() == "a file now"
    assert tree(tmp_path / "photos") == before


def test_with_the_output_folder_gone_too_the_picture_is_rescued_beside_the_library(tmp_path: Path) -> None:
    places = folders(tmp_path)
    delivery = _delivery(places, Target(folder=places.output))
    places.output.rmdir()
    places.output.write_text("a file now")
    kept = delivery.keep()
    assert Path(str(kept.record.path)).is_relative_to(places.state)
    assert Path(str(kept.record.path)).read_bytes() == png(7)
    assert any(str(kept.record.path) in warning for warning in kept.notes)
    assert any("its preview or its record could not be written" in warning for warning in kept.notes)
    assert delivery.library.get(kept.record.id) is not None


def test_when_no_disk_takes_it_the_raw_answer_stays_and_the_way_out_is_said(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery.places.output.rmdir()
    delivery.places.output.write_text("a file now")
    (delivery.places.state / "rescued").write_text("a file too")
    with pytest.raises(SetupError, match=r"could not be written to any disk.*'recover'.*without paying again"):
        delivery.keep()
    call = delivery.calls[0]
    assert Spool(delivery.places).read(call.id) == b"{}"
    assert [found.id for _, found in delivery.journal.unfinished()] == [call.id]
    delivery.places.output.unlink()
    assert delivery.keep(again=True).record.path is not None


def test_a_model_without_a_known_price_costs_an_unknown_sum_and_not_nothing(delivery: Delivery) -> None:
    unknown = replace(SPEC, image_usd=None)
    delivery.plan = replace(delivery.plan, choice=replace(delivery.plan.choice, spec=unknown))
    kept = delivery.keep()
    assert kept.cost_usd is None
    assert delivery.journal.spending("gemini").hour_usd == pytest.approx(0.04)
