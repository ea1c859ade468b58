"""Numbers that stand for "unknown" are noted, a few columns by name."""

from __future__ import annotations

import pytest

from gipi.data.stand_ins import NOTED, StandIn, noted


@pytest.mark.parametrize("many", [1, NOTED, NOTED + 1, NOTED + 7])
def test_a_run_notes_few_columns_by_name(many: int) -> None:
    lines = noted(StandIn(f"c{i}", -999.0, 9, 0.1) for i in range(many))
    assert len(lines) == min(many, NOTED + 1)
    assert lines[0].startswith("'c0' is -999")
    assert "na_values" in lines[0]
    if many > NOTED:
        assert lines[-1].startswith(f"and {many - NOTED} more column")
