"""The storm in short; `make storm` is the long one."""

import os
from pathlib import Path

import pytest

from tests.support.storm import Storm, cuts, rebuilt
from tests.support.world import world

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")]


def test_a_storm_of_kills_over_all_tools_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        storm = Storm(made, seed=8)
        assert storm.kills(24) >= 24
        rebuilt(storm, 2)
        assert storm.told.outcomes.total() >= 48


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a disk takes root")
def test_power_cuts_lose_no_picture_that_was_told_of(tmp_path: Path) -> None:
    try:
        outcomes = cuts(tmp_path, seed=4, wanted=3)
    except OSError as error:
        pytest.skip(f"this machine mounts no disk: {error}")
    assert outcomes.total() > 0
