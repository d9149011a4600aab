"""The released network as somebody would write it by hand for single rows: what every peer serves.

Plain Python numbers up to the first layer, numpy after it, the decision in three lines: nothing general, so nothing to
pay for. `Row` is the contract as a strict pydantic model. Nothing of the product is imported here.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, create_model
from ruamel.yaml import YAML
from safetensors.numpy import load_file

CALL_COST, SHARE, MARGIN, CAP = 1.0, 0.25, 0.02463333, 5000.0  # as in policies/telemarketing/utility.yaml


class Network:
    """The weights of one release; `probability` of one row."""

    def __init__(self, folder: Path) -> None:
        encoding = json.loads((folder / "preprocessing.json").read_bytes())
        calibration = json.loads((folder / "calibration.json").read_bytes())
        weights = load_file(folder / "weights.safetensors")
        self._numeric = encoding["numeric"]
        self._categories = [
            (one["name"], {value: i + 1 for i, value in enumerate(one["values"])}, weights[f"embedding.{j}"])
            for j, one in enumerate(encoding["categories"])
        ]
        layers = sum(name.startswith("layer.") for name in weights) // 2
        self._layers = [
            (np.ascontiguousarray(weights[f"layer.{i}.weight"]), weights[f"layer.{i}.bias"])
            for i in range(layers)
        ]
        self._slope = calibration["slope"]
        self._bias = calibration["bias"][1] - calibration["bias"][0]

    def probability(self, row: dict[str, Any]) -> float:
        """P(subscribed)."""
        numbers = []
        for f in self._numeric:
            value = row.get(f["name"])
            if value is None:
                numbers.append(0.0)
            else:
                x = min(max(float(value), f["low"]), f["high"])
                if f["log_scale"] is not None:
                    x = math.copysign(math.log1p(abs(x) / f["log_scale"]), x)
                numbers.append((x - f["mean"]) / f["std"])
            if f["indicator"]:
                numbers.append(1.0 if value is None else 0.0)
        parts = [np.array(numbers, dtype=np.float32)]
        for name, index, table in self._categories:
            parts.append(table[index.get(row.get(name), 0)])
        units = np.concatenate(parts)
        for weight, bias in self._layers[:-1]:
            units = np.maximum(weight @ units + bias, np.float32(0.0))
        weight, bias = self._layers[-1]
        logits = (weight @ units + bias).tolist()
        return 1 / (1 + math.exp(-(self._slope * (logits[1] - logits[0]) + self._bias)))


class DecisionMaker:
    """Decides, logs and answers one row: the function of the product's /decide, without what makes it general."""

    def __init__(self, folder: Path, log_file: Path) -> None:
        self._network = Network(folder)
        self._release = folder.name
        self._log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def decide(self, row: dict[str, Any], *, unit: str | None, request_id: str | None) -> dict[str, Any]:
        """The answer, after its line is in the log."""
        p = self._network.probability(row)
        gain = SHARE * MARGIN * min(max(float(row["balance"]), 0.0), CAP)
        call = p * (gain - CALL_COST) - (1 - p) * CALL_COST
        answer = {
            "decision_id": uuid.uuid4().hex,
            "action": "call" if call > 0 else "leave",
            "score": p,
            "expected_utility": {"leave": 0.0, "call": call},
            "threshold": CALL_COST / gain if gain > 0 else None,
            "release": self._release,
        }
        record = {**answer, "unit": unit, "request_id": request_id, "row": row}
        os.write(self._log, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        return answer


class Answer(BaseModel):
    """What a decision is answered with."""

    decision_id: str
    action: str
    score: float
    expected_utility: dict[str, float]
    threshold: float | None
    release: str


def row_model(contract_file: Path) -> type[BaseModel]:
    """The contract's features as a strict pydantic model: types, bounds, categories, nothing unknown."""
    contract = YAML(typ="safe").load(contract_file)
    fields: dict[str, Any] = {}
    for column in contract["schema"][0]["properties"]:
        marks = {one["property"]: one["value"] for one in column.get("customProperties", [])}
        if marks.get("mlRole") != "feature" or marks.get("availableAt", "0s") != "0s":
            continue
        fields[column["name"]] = _field(column)
    return create_model("Row", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _field(column: dict[str, Any]) -> Any:
    options = column.get("logicalTypeOptions", {})
    values = [
        value
        for rule in column.get("quality", [])
        for value in rule.get("arguments", {}).get("validValues", [])
        if rule.get("metric") == "invalidValues"
    ]
    kind: Any = {"integer": int, "number": float, "boolean": bool}.get(column["logicalType"], str)
    if values:
        kind = Literal[tuple(values)]
    bounds = {"ge": options.get("minimum"), "le": options.get("maximum")}
    kind = Annotated[kind, Field(**{name: bound for name, bound in bounds.items() if bound is not None})]
    return (kind, ...) if column.get("required") else (kind | None, None)
