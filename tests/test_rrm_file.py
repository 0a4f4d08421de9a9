"""``.rrm`` files: exact round trip, and one clear error for whatever is wrong with a file."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from host import rrm_file
from host.errors import UserError
from host.network import Network, NetworkInput
from host.rrm_file import Model, load, save
from host.sidecar import Sidecar
from sim.graph import Code, Edge, Geometry, Graph, Node, Operand, Output, Pool, Projection, Read, Tensor


def random_model(seed: int) -> Model:
    """A quantised network with every kind of part and every optional field, in random numbers."""
    rng = np.random.default_rng(seed)

    def integers(*shape: int) -> np.ndarray:
        return rng.integers(-(1 << 22), 1 << 22, shape)

    def operand(source: str, branch: Code | None = None) -> Operand:
        extra = {"branch": branch, "branch_multiplier": integers(6), "branch_shift": integers(6)}
        return Operand(source, rng.normal(size=6), bias_code=integers(6), multiplier=integers(6),
                       negative_multiplier=integers(6), **(extra if branch else {}))

    conv = Edge.conv("in", "p", rng.normal(size=(6, 2, 3, 3)),
                     Geometry((2, 1), (1, 2), (1, 1), (1, -1), (0, 7, 1, 8)), groups=2)
    edges = tuple(Edge(e.source, e.target, e.channels, e.rows, e.weight, e.geometry,
                       rng.integers(-127, 128, e.weight.shape).astype(np.int32), 8) for e in [conv])
    nodes = (Node("a", (operand("p"),), rng.normal(size=6), (None, 6.0), False, Pool((3, 2), (2, 2), (1, 0)),
                  integers(6), -3, 200),
             Node("b", (operand("a", Code(0.1 / 3, -128, 127, -5)), operand("a")), np.ones(6),
                  shift=integers(6), lo=-128, hi=127, sign=True))
    tensors = [Tensor("in", (4, 8, 9), Code(1 / 255, 0, 255, 0)),
               Tensor("a", (6, 2, 3), Code(np.pi, -100, 155, 7)),
               Tensor("b", (6, 2, 3), Code(1e-9, -128, 127))]
    index = rng.permutation(36).reshape(1, 36)
    graph = Graph("random", "in", {t.name: t for t in tensors},
                  {"p": Projection("p", (6, 4, 5), rng.random(6) / 3, "direct")}, edges, nodes,
                  (Output("y", (1, 36), (Read("b", rng.normal(size=6)),), index),), 27)
    graph.validate()
    layout = rng.permutation(288).reshape(4, 8, 9)
    network_input = NetworkInput("in", (1, 4, 8, 9), "int8", layout, Code(0.5, -128, 127, 3))
    network = Network("random", graph, network_input, (("y", (1, 36)),), rng.bytes(1000))
    sidecar = Sidecar.from_dict({"input": {"size": [9, 8], "mean": [1 / 3], "colour": "grey"},
                                 "head": {"kind": "raw"}})
    return Model(network, sidecar, {"source": "n.onnx", "clip": None, "frames": 32},
                 {"program": {"words": integers(5).astype("<u4"), "image": b"\0\1", "map": {"a": [0, 1]}}})


def assert_same(a: object, b: object, where: str = "model") -> None:
    """Equal in value and in type, arrays in dtype too, recursively (lists count as tuples)."""
    if is_dataclass(a):
        assert type(a) is type(b), where
        for f in (f for f in fields(a) if f.compare):
            assert_same(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        np.testing.assert_array_equal(a, b, err_msg=where)
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert type(a) is type(b), where
        assert a == b, where


@pytest.mark.parametrize("seed", range(3))
def test_round_trip_is_exact(tmp_path, seed):
    model = random_model(seed)
    save(tmp_path / "n.rrm", model)
    assert_same(model, load(tmp_path / "n.rrm"))


def test_same_content_makes_the_same_bytes(tmp_path):
    save(tmp_path / "a.rrm", random_model(1))
    save(tmp_path / "b.rrm", load(tmp_path / "a.rrm"))
    assert (tmp_path / "a.rrm").read_bytes() == (tmp_path / "b.rrm").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.rrm") as archive:
        assert {m.date_time for m in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_known_by_content_not_by_name(tmp_path):
    save(tmp_path / "a.bin", random_model(1))
    (tmp_path / "b.rrm").write_bytes(b"PK\3\4" + bytes(60))
    assert rrm_file.is_rrm(tmp_path / "a.bin")
    assert not rrm_file.is_rrm(tmp_path / "b.rrm")
    assert not rrm_file.is_rrm(tmp_path / "missing")


def test_an_unquantised_network_is_not_stored(tmp_path):
    model = random_model(1)
    graph = model.network.graph.with_parts(tensors={n: Tensor(n, t.shape) for n, t in
                                                    model.network.graph.tensors.items()})
    bare = Network("n", graph, model.network.input, model.network.outputs)
    with pytest.raises(ValueError, match="only a quantised network"):
        save(tmp_path / "n.rrm", Model(bare, model.sidecar))
    assert list(tmp_path.iterdir()) == []


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.rrm")
    (tmp_path / "text.rrm").write_text("hello")
    with pytest.raises(UserError, match=r"not an \.rrm file"):
        load(tmp_path / "text.rrm")


def test_every_cut_is_damage(tmp_path):
    save(tmp_path / "n.rrm", random_model(1))
    whole = (tmp_path / "n.rrm").read_bytes()
    for length in [*range(60, len(whole), len(whole) // 40), len(whole) - 1]:
        (tmp_path / "cut.rrm").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.rrm: damaged \.rrm file"):
            load(tmp_path / "cut.rrm")


def test_changed_bytes_never_give_another_network(tmp_path):
    model = random_model(1)
    save(tmp_path / "n.rrm", model)
    whole = (tmp_path / "n.rrm").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for where in rng.integers(48, len(whole), 150).tolist():
        (tmp_path / "bad.rrm").write_bytes(whole[:where] + bytes([whole[where] ^ 0x55]) + whole[where + 1 :])
        try:
            loaded = load(tmp_path / "bad.rrm")
        except UserError:
            refused += 1
        else:
            assert_same(model, loaded)  # a byte that nobody reads, such as a date
    assert refused > 100


def rewrite_header(path, change) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    header = json.loads(members["header.json"])
    change(header)
    members["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def test_a_newer_format_says_so(tmp_path):
    save(tmp_path / "n.rrm", random_model(1), "rrm-fpga 9.9")
    rewrite_header(tmp_path / "n.rrm", lambda h: h.update(format=rrm_file.FORMAT + 1))
    with pytest.raises(UserError, match=r"file format 2, written by rrm-fpga 9\.9"):
        load(tmp_path / "n.rrm")


def test_a_graph_that_breaks_its_rules_is_damage(tmp_path):
    save(tmp_path / "n.rrm", random_model(1))
    rewrite_header(tmp_path / "n.rrm", lambda h: h["network"]["graph"].update(input="nowhere"))
    with pytest.raises(UserError, match=r"damaged \.rrm file .*nowhere"):
        load(tmp_path / "n.rrm")


def test_unwritable_path(tmp_path):
    with pytest.raises(UserError, match=r"the folder .* does not exist"):
        save(tmp_path / "none" / "n.rrm", random_model(1))
