"""What a device run left (`python -m benchmarks.device`): its tables and figures, and the tables of the package made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf, log
from pathlib import Path
from statistics import median
from typing import Any

from sincere_spec.bench.report import table
from sincere_spec.bench.results import Memory, Result, Time
from sincere_spec.call.plan import crossovers

SCHEMA = 1
PARTS = ("correct", "suite", "repeat", "crossovers", "shapes", "bench", "million", "pallas")
ITEMSIZE = {"bfloat16": 2, "float32": 4}
PROGRAMS = ("kernel", "tiled", "dense", "auto-compiled", "plain", "plain-compiled")


@dataclass(frozen=True)
class Part:
    """A part of a run: its status, why it is not right, and its rows."""

    name: str
    status: str
    reason: str
    seconds: float
    rows: tuple[Mapping[str, Any], ...]
    says: str
    rehearsal: bool
    machine: Mapping[str, Any]
    facts: Mapping[str, Any]
    commit: str
    date: str

    @property
    def device(self) -> str:
        """The name of the device."""
        return str(self.machine.get("accelerator", "no device"))

    def measured(self, **fields: Any) -> list[Mapping[str, Any]]:
        """The rows that were measured and have these fields."""
        return [row for row in self.rows if row["status"] == "ok" and all(row.get(k) == v for k, v in fields.items())]


def folders(root: Path) -> list[Path]:
    """The folders of device runs in a folder of results."""
    return sorted(
        path for path in root.iterdir() if path.is_dir() and any((path / f"{name}.json").exists() for name in PARTS)
    )


def read(folder: Path) -> dict[str, Part]:
    """The parts of a run by name, in their order; raises ValueError for none, for a rehearsal, or for another schema."""
    found: dict[str, Part] = {}
    for name in PARTS:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(
                f"{path}: expected schema {SCHEMA}; got {data['schema']}: run python -m benchmarks.device again."
            )
        if data["rehearsal"]:
            raise ValueError(
                f"{path} is of a rehearsal, whose times are an interpreter's: run python -m benchmarks.device on a GPU."
            )
        fields = {key: data[key] for key in Part.__dataclass_fields__ if key not in ("name", "rows")}
        found[name] = Part(name=data["part"], rows=tuple(data["rows"]), **fields)
    if not found:
        raise ValueError(f"{folder} has no results of a device run; python -m benchmarks.device writes them.")
    return found


# --- the tables of the package ---


def adopt(folder: Path, crossovers_file: Path, shapes_file: Path) -> list[str]:
    """Write crossovers and shapes into the tables that `engine="auto"` and the launches of kernels read; says what changed.

    A part that is not there, or has no complete setting, leaves its table as it is.
    """
    parts = read(folder)
    asked = [parts[name] for name in ("correct", "suite", "repeat") if name in parts]
    bad = [f"{part.name} {part.status}" for part in asked if part.status in ("wrong", "failed")]
    if bad:
        raise ValueError(f"{folder}: {', '.join(bad)}: times of wrong results decide nothing.")
    said = []
    if "crossovers" in parts:
        found = crossover_table(parts["crossovers"])
        if found:
            known = json.loads(crossovers_file.read_text(encoding="utf-8"))
            known["torch"]["cuda"] = found
            crossovers_file.write_text(_crossovers_text(known), encoding="utf-8")
            said += [f"{dtype}, D = {dim}: {_says(row)}" for dtype, rows in found.items() for dim, row in rows.items()]
    if "shapes" in parts:
        best = best_shapes(parts["shapes"])
        if best:
            known = json.loads(shapes_file.read_text(encoding="utf-8"))
            for (itemsize, sweep), shape in best.items():
                known[str(itemsize)][sweep] = shape
                said.append(f"{sweep} of {itemsize} bytes: {shape}")
            known["measured_on"] = parts["shapes"].device
            shapes_file.write_text(_shapes_text(known), encoding="utf-8")
    return said


def _says(row: Mapping[str, Any]) -> str:
    kernel = "kernels never faster" if row["kernel"] is None else f"kernels from {row['kernel']} pairs on"
    return f"{kernel}, tiles of {row['tile']} rows from {row['pairs']} on"


def crossover_table(part: Part) -> dict[str, dict[str, dict[str, int | None]]]:
    """By dtype and D: the best tile, and from how many pairs on tiles and kernels are faster than what there is without them."""
    found: dict[str, dict[str, dict[str, int | None]]] = {}
    settings = sorted({(row["dtype"], row["dim"]) for row in part.rows})
    for dtype, dim in settings:
        losses = sorted({row["loss"] for row in part.measured(dtype=dtype, dim=dim)})
        tile = _best_tile(part.measured(dtype=dtype, dim=dim, program="tiled"))
        answers = [_of_loss(part.measured(dtype=dtype, dim=dim, loss=loss), tile) for loss in losses]
        if tile is None or not answers or None in answers:
            continue  # cut short
        known = [answer for answer in answers if answer is not None]
        pairs = max(pairs for pairs, _ in known)
        kernels = [kernel for _, kernel in known]
        kernel = None if None in kernels else max(kernel for kernel in kernels if kernel is not None)
        found.setdefault(dtype, {})[str(dim)] = {"pairs": pairs, "tile": tile, "kernel": kernel}
    return found


def _best_tile(rows: Iterable[Mapping[str, Any]]) -> int | None:
    """The tile with the smallest product of times over the losses, at the largest size."""
    rows = list(rows)
    largest = max((row["size"] for row in rows), default=0)
    logs: dict[int, list[float]] = {}
    for row in rows:
        if row["size"] == largest:
            logs.setdefault(row["tile"], []).append(log(median(row["seconds"])))
    most = max(map(len, logs.values()), default=0)
    complete = {tile: fsum(found) for tile, found in logs.items() if len(found) == most}
    return min(complete, key=lambda tile: complete[tile]) if complete else None


def _of_loss(rows: Sequence[Mapping[str, Any]], tile: int | None) -> tuple[int, int | None] | None:
    """From how many pairs on tiles beat dense, and kernels beat both (None: never), of a loss; None if it was cut short."""
    times: dict[str, dict[int, float]] = {"dense": {}, "tiled": {}, "kernel": {}}
    for row in rows:
        if row["program"] != "tiled" or row["tile"] == tile:
            times[row["program"]][row["size"]] = median(row["seconds"])
    sizes = sorted(times["tiled"])
    if not sizes or sizes[-1] not in times["kernel"] or len(sizes) < 2:
        return None
    dense, tiled, kernel = (times[name] for name in ("dense", "tiled", "kernel"))
    pairs = _first_win(sizes, tiled, dense)
    without = {size: min(tiled[size], dense.get(size, inf)) for size in sizes}
    unmeasured: int = crossovers()["unmeasured"]["pairs"]  # from where on tiles save memory
    return unmeasured if pairs is None else pairs, _first_win(sizes, kernel, without)


def _first_win(sizes: Sequence[int], ours: Mapping[int, float], other: Mapping[int, float]) -> int | None:
    """N² from which on `ours` was faster at every size: between the last size that it lost and the next; None if never."""
    lost = [size for size in sizes if ours.get(size, inf) >= other.get(size, inf)]
    if not lost:
        return sizes[0] ** 2
    after = sizes.index(lost[-1]) + 1
    return None if after == len(sizes) else lost[-1] * sizes[after]


def best_shapes(part: Part) -> dict[tuple[int, str], dict[str, int]]:
    """By bytes of an entry and sweep the shape with the smallest product of times over D, of those measured at every D."""
    found: dict[tuple[int, str], dict[tuple[tuple[str, int], ...], list[float]]] = {}
    for row in part.measured():
        shapes = found.setdefault((ITEMSIZE[row["dtype"]], row["sweep"]), {})
        shapes.setdefault(tuple(row["shape"].items()), []).append(log(median(row["seconds"])))
    best: dict[tuple[int, str], dict[str, int]] = {}
    for key, shapes in found.items():
        most = max(map(len, shapes.values()))
        complete = {shape: fsum(logs) for shape, logs in shapes.items() if len(logs) == most}
        _, shape = min((total, shape) for shape, total in complete.items())
        best[key] = dict(shape)
    return best


def _crossovers_text(table: Mapping[str, Any]) -> str:
    """JSON with a line for each backend, and for each dtype and D where it depends on them."""
    lines = []
    for name, row in table.items():
        if not any(isinstance(value, dict) and "pairs" not in value for value in row.values() if isinstance(row, dict)):
            lines.append(f"  {json.dumps(name)}: {json.dumps(row)}")
            continue
        platforms = []
        for platform, known in row.items():
            if "pairs" in known:
                platforms.append(f"    {json.dumps(platform)}: {json.dumps(known)}")
                continue
            dtypes = []
            for dtype, dims in known.items():
                rows = ",\n".join(f"        {json.dumps(dim)}: {json.dumps(found)}" for dim, found in dims.items())
                dtypes.append(f"      {json.dumps(dtype)}: {{\n{rows}\n      }}")
            platforms.append(f"    {json.dumps(platform)}: {{\n" + ",\n".join(dtypes) + "\n    }")
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(platforms) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _shapes_text(table: Mapping[str, Any]) -> str:
    """JSON with a line for each sweep."""
    lines = [f'  "measured_on": {json.dumps(table["measured_on"])}']
    for itemsize, sweeps in table.items():
        if itemsize != "measured_on":
            rows = ",\n".join(f"    {json.dumps(sweep)}: {json.dumps(shape)}" for sweep, shape in sweeps.items())
            lines.append(f"  {json.dumps(itemsize)}: {{\n{rows}\n  }}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


# --- tables and figures for people ---


def results(parts: Mapping[str, Part]) -> list[Result]:
    """The bench of a run as results, one for each dtype, for the figures of `plots`."""
    bench = parts.get("bench")
    if bench is None:
        return []
    found = []
    for dtype in dict.fromkeys(row["dtype"] for row in bench.rows):
        rows = [row for row in bench.rows if row["dtype"] == dtype]
        units = {
            (row["loss"], row["size"]): row["seconds"]
            for row in rows
            if row["program"] == "unit" and row["status"] == "ok"
        }
        times, memory = [], []
        for row in rows:
            unit = units.get((row["loss"], row["size"]))
            if row["program"] == "unit" or unit is None:
                continue
            seconds, status = tuple(row.get("seconds", ())), row["status"]
            kept = {
                "status": status if status in ("ok", "unsupported", "skipped") else "failed",
                "reason": row.get("reason", ""),
            }
            place = (row["loss"], row["size"], row["program"], row["kind"])
            times.append(Time(*place, **kept, seconds=seconds, unit=(median(unit),) * len(seconds)))
            if "peak" in row:
                towers = 1 if row["loss"] == "sincere" else 2
                gradients = towers * row["size"] * row["dim"] * ITEMSIZE[dtype]
                memory.append(
                    Memory(*place, **kept, extra=row["peak"], gradients=gradients, method="the framework's allocator")
                )
        found.append(
            Result(
                framework="torch",
                device=f"cuda-{dtype}",
                machine=dict(bench.machine),
                versions=dict(bench.facts["versions"]),
                commit=bench.commit,
                date=bench.date,
                settings={"dtype": dtype, "dim": rows[0]["dim"], "threads": 1},
                times=tuple(times),
                memory=tuple(memory),
            )
        )
    return found


def render(parts: Mapping[str, Part], figures: str) -> str:
    """The tables of a run as Markdown; `figures` is the folder of its figures, as a link says it."""
    first = next(iter(parts.values()))
    versions = ", ".join(f"{name} {number}" for name, number in first.facts.get("versions", {}).items())
    head = f"**{first.device}** (`{Path(figures).name}`), commit {first.commit[:10]}, {first.date[:10]}; {versions}."
    status = table(
        ["part of the run", "", "rows", "s"],
        [[part.says, _status(part), str(len(part.rows)), f"{part.seconds:.0f}"] for part in parts.values()],
    )
    drawn = results(parts)
    links = ", ".join(f"[{result.settings['dtype']}]({figures}/{result.file}.svg)" for result in drawn)
    return "\n\n".join(
        filter(
            None,
            (
                head,
                status,
                _bench(drawn),
                _shapes(parts.get("shapes")),
                _crossovers(parts.get("crossovers")),
                f"Time and memory over N: {links}. Every raw time is in the JSON files beside them." if links else "",
            ),
        )
    )


def _status(part: Part) -> str:
    reason = part.reason if len(part.reason) <= 160 else f"{part.reason[:160]} …"
    return part.status if part.status == "right" else f"**{part.status}**: {reason}"


def _bench(drawn: Sequence[Result]) -> str:
    """Milliseconds, units and peaks by loss, dtype and N; other packages in the last column."""
    rows = []
    for result in drawn:
        places = sorted({(row.loss, row.size) for row in result.times})
        for loss, size in places:
            here = {row.program: row for row in result.times if (row.loss, row.size) == (loss, size)}
            peaks = {
                row.program: row for row in result.memory if (row.loss, row.size) == (loss, size) and row.status == "ok"
            }
            cells = [_cell(here.get(name), peaks.get(name)) for name in PROGRAMS]
            peers = [f"{name}: {_cell(row, peaks.get(name))}" for name, row in here.items() if row.kind == "peer"]
            rows.append([f"`{loss}`", str(result.settings["dtype"]), str(size), *cells, "<br>".join(peers)])
    return table(["forward and backward", "", "N", *PROGRAMS, "other packages"], rows)


def _cell(time: Time | None, memory: Memory | None) -> str:
    if time is None:
        return ""
    if time.status != "ok":
        return "out of memory" if time.reason.startswith("out of memory") else time.status
    peak = "" if memory is None else f", {memory.beside / 1e6:.0f} MB"
    return f"{time.median * 1e3:.3g} ms, {time.units:.1f} units{peak}"


def _shapes(part: Part | None) -> str:
    if part is None:
        return ""
    best = best_shapes(part)
    rows = []
    for (itemsize, sweep), shape in best.items():
        row = next(
            row for row in part.measured(sweep=sweep) if row["shape"] == shape and ITEMSIZE[row["dtype"]] == itemsize
        )
        words = ", ".join(f"{name} {value}" for name, value in shape.items())
        rows.append([sweep, row["dtype"], words, f"{median(row['seconds']) * 1e3:.3g} ms", f"{row['tflops']:.0f}"])
    return table(["the fastest shapes", "", "", "", "TFLOP/s, pieces and repeated similarities counted"], rows)


def _crossovers(part: Part | None) -> str:
    rows = (
        []
        if part is None
        else [
            [dtype, dim, str(row["tile"]), str(row["pairs"]), "never" if row["kernel"] is None else str(row["kernel"])]
            for dtype, dims in crossover_table(part).items()
            for dim, row in sorted(dims.items(), key=lambda item: int(item[0]))
        ]
    )
    return table(["crossovers", "D", "best tile", "tiles are faster from so many pairs on", "kernels"], rows)
