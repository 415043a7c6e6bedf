"""The record of commands."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

import peat
from peat import _ledger
from peat._ledger import NAME, Ledger, Line
from peat.agent.v1 import agent_pb2

COMPLETED = agent_pb2.CommandUpdate.STAGE_COMPLETED


def test_what_was_appended_is_there_after_a_restart(home: Path) -> None:
    ledger = Ledger(home / "a", "a1")
    ledger.append(Line(_ledger.ACCEPTED, "c1", command=b"\x00body"), Line(_ledger.ACCEPTED, "c2", command=b"two"))
    ledger.append(Line(_ledger.STARTED, "c2"))
    ledger.append(Line(_ledger.DONE, "c3", stage=COMPLETED, result='"☂"'))
    ledger.append(Line(_ledger.SETTLED, "c4", stage=COMPLETED), Line(_ledger.SETTLED, "c5"))
    ledger.append(Line(_ledger.WORK, "key", result="1", at=7))
    for _ in range(2):
        ledger.close()
        ledger = Ledger(home / "a", "a1")
        assert ledger.open["c1"] == Line(_ledger.ACCEPTED, "c1", command=b"\x00body")
        assert ledger.open["c2"] == Line(_ledger.STARTED, "c2", command=b"two")
        assert ledger.open["c3"].result == '"☂"'
        assert ledger.settled == {"c4": COMPLETED}
        assert ledger.work["key"].at == 7
    ledger.close()


def test_a_torn_end_is_dropped_and_damage_is_refused(home: Path) -> None:
    ledger = Ledger(home, "a1")
    ledger.append(Line(_ledger.ACCEPTED, "c1", command=b"x"))
    ledger.append(Line(_ledger.ACCEPTED, "c2", command=b"x"))
    ledger.close()
    whole = (home / NAME).read_bytes()
    for cut in range(1, len(Line(_ledger.ACCEPTED, "c2", command=b"x").encode())):
        (home / NAME).write_bytes(whole[:-cut])
        ledger = Ledger(home, "a1")
        assert list(ledger.open) == ["c1"]
        ledger.close()
    for at in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        (home / NAME).write_bytes(damaged)
        if whole[at : at + 1] == b"\n" or damaged[at] == ord("\n"):
            continue
        with pytest.raises(peat.FailedPrecondition, match="damaged"):
            Ledger(home, "a1")


def test_a_ledger_belongs_to_one_agent_and_one_process_at_a_time(home: Path) -> None:
    ledger = Ledger(home, "a1")
    with pytest.raises(peat.FailedPrecondition, match="another agent uses it"):
        Ledger(home, "a1")
    ledger.close()
    with pytest.raises(peat.FailedPrecondition, match="belongs to agent 'a1'"):
        Ledger(home, "a2")
    Ledger(home, "a1").close()


def test_the_ledger_is_bounded(home: Path) -> None:
    ledger = Ledger(home, "a1")
    for batch in range(0, 3 * _ledger.REMEMBERED_IDS, 1000):
        ledger.append(*(Line(_ledger.SETTLED, f"c{n}", stage=COMPLETED) for n in range(batch, batch + 1000)))
    for key in range(2 * _ledger.REMEMBERED_WORK):
        ledger.work.pop("none", None)
        ledger._note(Line(_ledger.WORK, f"k{key}", result="1"))
    assert len(ledger.settled) == _ledger.REMEMBERED_IDS
    assert f"c{3 * _ledger.REMEMBERED_IDS - 1}" in ledger.settled
    assert len(ledger.work) == _ledger.REMEMBERED_WORK
    assert (home / NAME).stat().st_size < 4 << 20
    ledger.close()


def test_a_failed_write_is_reported_and_leaves_the_record_whole(home: Path) -> None:
    ledger = Ledger(home, "a1")
    ledger.append(Line(_ledger.ACCEPTED, "c1", command=b"x"))
    good, ledger._file = ledger._file, open("/dev/full", "wb", 0)  # noqa: SIM115
    with pytest.raises(peat.FailedPrecondition, match="No space left"):
        ledger.append(Line(_ledger.STARTED, "c1"))
    assert ledger.open["c1"].kind == _ledger.ACCEPTED
    ledger._file.close()
    ledger._file = good
    ledger.close()


def test_the_go_clients_record_is_read(home: Path) -> None:
    # As ipc/go writes it: CommandPush.Command of "c1", type "a<b".
    lines = b'{"kind":"owner","id":"a1"}', b'{"kind":"accepted","id":"c1","command":"CgJjMRoDYTxi"}'
    (home / NAME).write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines))
    ledger = Ledger(home, "a1")
    assert ledger.open["c1"].command == b"\n\x02c1\x1a\x03a<b"
    ledger.close()
