"""Does every guard catch its planted leak and pass the clean twin? Prints the table.

Run: python benchmarks/leak_table.py [--json OUT.json]; exit status 1 when a row fails.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from renalkit.usecases.check import check

PLANTED = Path(__file__).resolve().parents[1] / "tests/leaks/planted.py"


def main() -> int:
    spec = importlib.util.spec_from_file_location("planted", PLANTED)
    assert spec is not None
    assert spec.loader is not None
    planted = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = planted
    spec.loader.exec_module(planted)
    rows = []
    for plant in planted.PLANTS:
        seen = []
        for make, links in ((plant.planted, plant.links), (plant.clean, ())):
            found = check(make(), links=links).findings
            worst = [f.severity.value for f in found if f.guard == plant.guard]
            seen.append(next((s for s in ("block", "review") if s in worst), "passed"))
        rows.append(
            {"guard": plant.guard, "leak": plant.name, "planted": seen[0], "clean": seen[1]}
        )
    print(f"{'guard':<6}{'planted leak':<52}{'planted':<9}clean twin")
    for row in rows:
        print(f"{row['guard']:<6}{row['leak']:<52}{row['planted']:<9}{row['clean']}")
    good = [r for r in rows if r["planted"] != "passed" and r["clean"] == "passed"]
    print(f"{len(good)} of {len(rows)} leaks caught with a clean twin that passes")
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(rows, indent=2) + "\n")
    return int(len(good) < len(rows))


if __name__ == "__main__":
    sys.exit(main())
