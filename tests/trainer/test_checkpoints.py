"""Which checkpoint a run goes on with."""

from __future__ import annotations

from hf_latentrec.trainer import last_complete_checkpoint


def write(folder, step, state):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if state is not None:
        (path / "trainer_state.json").write_text(state)


def test_the_newest_complete_one(tmp_path, caplog):
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    write(tmp_path, 90, "{}")
    write(tmp_path, 100, "{}")
    write(tmp_path, 110, '{"global_step": 11')
    write(tmp_path, 120, None)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    assert "checkpoint-110 was not written to the end" in caplog.text
