"""PyTorch files are read as data: what they hold is found, whatever else they say is refused."""

import builtins
import codecs
import contextlib
import os
import pickle
import pickletools
import struct
import time
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from conftest import SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_original import KINDS, state_of
from torch_files import (
    CLASSES,
    FORMATS,
    Call,
    Module,
    Ordered,
    Raw,
    Tensor,
    Writer,
    legacy,
    name_of,
    network_of,
    zipped,
)

from radapt_jax import Family, __main__, family_of_original
from radapt_jax.convert import read_torch, state_dict_of
from radapt_jax.convert.pickled import Stub

codecs.lookup("cp437")  # of names in zip files; it cannot be imported while a test forbids imports

WEIGHTS = SHARED / "weights"
real = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the real weights are not here")
both = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
F4 = np.arange(24, dtype=np.float32)


@pytest.fixture
def read(tmp_path):
    """Read bytes as a file."""

    def read(content, reader=read_torch):
        (tmp_path / "file.pth").write_bytes(content)
        return reader(tmp_path / "file.pth")

    return read


def opcodes_of(value):
    """The opcodes of a value that has no tensors."""
    return Writer().opcodes(value)


def refused(read, content, words=None):
    with pytest.raises(ValueError, match=words) as found:
        read(content)
    assert "file.pth" in str(found.value)
    assert "Nothing of the file was executed" in str(found.value)


def same(found, expected):
    assert list(found) == list(expected)
    for name, leaf in expected.items():
        assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape), name
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


# What is read


@real
@pytest.mark.parametrize(
    ("name", "count", "best"), [("20-12fca82f", 97, 91.78), ("56-4bfd9763", 277, 93.62)]
)
def test_real_files(name, count, best):
    path = WEIGHTS / f"cifar10_resnet{name}.th"
    whole, state = read_torch(path), state_dict_of(path)
    assert whole["best_prec1"] == pytest.approx(best, abs=1e-3)
    assert all(key.startswith("module.") for key in whole["state_dict"])
    assert len(state) == count
    assert state["conv1.weight"].shape == (16, 3, 3, 3)
    if name.startswith("20"):
        twin = state_dict_of(WEIGHTS / "cifar10_resnet20.safetensors")
        same(dict(sorted(state.items())), dict(sorted(twin.items())))


@both
def test_every_dtype(write, read):
    values = np.array([[0, 1, 2], [3, 100, 1]])
    dtypes = {name: ml_dtypes.bfloat16 if name == "bfloat16" else name for name in CLASSES}
    state = {name: values.astype(dtype) for name, dtype in dtypes.items()}
    state |= {"scalar": np.array(7), "empty": np.zeros((0, 3), np.float32)}
    expected = {**state, "bfloat16": values.astype(np.float32)}
    same(read(write(Ordered(state))), expected)
    same(read(write(Ordered(state)), state_dict_of), expected)


def test_files_of_big_endian_machines(read):
    state = {"w": F4, "n": np.array([1, -2]), "b": F4.astype(ml_dtypes.bfloat16)}
    same(read(zipped(state, ">")), {**state, "b": F4})


@both
def test_strides_and_shared_storages(write, read):
    grid = F4.reshape(4, 6)
    found = read(
        write(
            {
                "turned": Tensor(F4, 0, (6, 4), (1, 6), key="s"),
                "inner": Tensor(F4, 7, (2, 3), (6, 2), key="s"),
                "row": Tensor(F4, 18, (6,), (1,), key="s"),
            }
        )
    )
    same(found, {"turned": grid.T, "inner": grid[1:3, 1:6:2], "row": grid[3]})
    assert np.shares_memory(found["turned"], found["row"])


@both
@pytest.mark.parametrize("place", [None, "state_dict", "model", "net"])
def test_a_state_dict_is_found_where_it_is(write, place, read):
    state = {"a.weight": F4.reshape(4, 6), "a.bias": F4[:4]}
    inside = Ordered({f"module.{name}": leaf for name, leaf in state.items()})
    content = write(inside if place is None else {place: inside, "acc": 81.5, "epoch": 3})
    same(read(content, state_dict_of), state)
    assert place is None or read(content)["acc"] == 81.5


@both
def test_a_whole_network_becomes_stubs_with_its_state(write, read):
    state = {"conv.weight": F4.reshape(1, 1, 4, 6), "bn.bias": F4[:1], "bn.running_mean": F4[:1]}
    net = Module("torch.nn.parallel.data_parallel.DataParallel", {}, {}, {
        "module": network_of(state)
    }, device_ids=[0, 1])  # fmt: skip
    content = write({"net": net, "acc": 50.0, "epoch": 7})
    found = read(content)
    assert (found["acc"], found["epoch"], str(found["net"].kind.name)) == (50.0, 7, "DataParallel")
    assert isinstance(found["net"].state["_modules"]["module"], Stub)
    assert found["net"].state["device_ids"] == [0, 1]
    same(read(content, state_dict_of), state)
    same(read(write(net), state_dict_of), state)  # the file is the network


@both
def test_what_modules_of_different_years_hold(write, read):
    weight = Call("torch.nn.parameter.Parameter", F4, state=(True, False, Ordered()))
    backend = Call("torch.nn.backends.thnn._get_thnn_function_backend")
    buffers = {"kept": F4[:2], "gone": F4[:3], "none": None}
    net = Module(
        "torch.nn.modules.linear.Linear",
        {"weight": weight, "bias": None},
        buffers,
        {"missing": None},
        _backend=backend,
        _backward_hooks=Ordered(),
        _non_persistent_buffers_set=Call("__builtin__.set", ["gone"]),
        size=Call("torch.Size", (2, 3)),
        src_device_obj=Call("torch.device", "cuda", 0),
    )
    same(read(write({"net": net}), state_dict_of), {"weight": F4, "kept": F4[:2]})
    assert read(write({"net": net}))["net"].state["size"] == (2, 3)


def test_state_dicts_with_metadata_and_of_python_2(read):
    """What an OrderedDict remembers beside its items is passed over; names may be bytes."""
    opcodes = (
        name_of("collections.OrderedDict") + b")RU\x01w" + opcodes_of(Call("torch.Size", (2,)))
    )
    pairs = Call("collections.OrderedDict", [["a", 1], ["b", [2]]])
    assert read(zipped({"args": pairs})) == {"args": {"a": 1, "b": [2]}}
    opcodes += b"s" + opcodes_of({"_metadata": Ordered({"": {"version": 1}})}) + b"b"
    assert read(zipped({"args": Raw(opcodes)})) == {"args": {"w": (2,)}}


def test_safetensors_files(tmp_path):
    path, state = tmp_path / "any.name", {"module.a": F4, "module.b": F4.astype(ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(state, path)
    same(state_dict_of(path), {"a": F4, "b": F4})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"any\.name is no safetensors file, or is damaged"):
        state_dict_of(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"epoch": 3}, "no tensors under epoch"),
        ({"state_dict": Ordered()}, "no tensors under any name"),
        ({"net": Module("models.Net", {"w": 3})}, "no tensors under w"),
        ({"net": Module("models.Net", (), (), {"a": F4})}, "module 'a' that is ndarray"),
        ({"net": Call("models.Net", state={"x": 1}, opcode=b"\x81")}, "no _parameters in models"),
        ({1: F4, 10**5000: F4}, "no tensors under int, int"),
    ],
)
def test_where_no_state_dict_is(value, words, read):
    with pytest.raises(ValueError, match=words) as found:
        read(zipped(value), state_dict_of)
    assert "file.pth" in str(found.value)


def test_modules_that_hold_one_another_have_an_end(read):
    """One that holds itself, and one whose tree doubles sixty times."""
    itself = (
        name_of("models.A") + b")\x81q\x09}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_buffers}"
    )
    itself += b"X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x09sub"
    with pytest.raises(ValueError, match="modules within one another"):
        read(zipped({"net": Raw(itself)}), state_dict_of)
    start = b"}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_buffers}X\x08\x00\x00\x00_modules}"
    module = name_of("models.A") + b")\x81" + start + b"ub"
    for _ in range(60):
        module += b"q\x090" + name_of("models.A") + b")\x81" + start
        module += b"(X\x01\x00\x00\x00ah\x09X\x01\x00\x00\x00bh\x09uub"
    with pytest.raises(ValueError, match="or too many"):
        read(zipped({"net": Raw(module)}), state_dict_of)


# What is refused

TOUCH = "touch {}"
HARM = {
    "os.system": ("os.system", TOUCH),
    "posix.system": ("posix.system", TOUCH),
    "subprocess.Popen": ("subprocess.Popen", TOUCH),
    "builtins.eval": ("builtins.eval", "open({!r}, 'w')"),
    "builtins.exec": ("builtins.exec", "open({!r}, 'w')"),
    "builtins.open": ("builtins.open", "{}"),
    "builtins.__import__": ("builtins.__import__", "antigravity"),
    "builtins.getattr": ("builtins.getattr", "x"),
    "__builtin__.eval": ("__builtin__.eval", "open({!r}, 'w')"),
    "torch.hub.load": ("torch.hub.load", "{}"),
    "torch.load": ("torch.load", "{}"),
    "torch.serialization._load": ("torch.serialization._load", "{}"),
    "torch._utils._import_dotted_name": ("torch._utils._import_dotted_name", "os.system"),
    "torch.nn.init.eval": ("torch.nn.init.eval", "open({!r}, 'w')"),
    "torch.storage._load_from_bytes": ("torch.storage._load_from_bytes", "{}"),
    "functools.partial": ("functools.partial", "{}"),
    "operator.attrgetter": ("operator.attrgetter", "system"),
    "copyreg._reconstructor": ("copyreg._reconstructor", "{}"),
    "copy_reg._reconstructor": ("copy_reg._reconstructor", "{}"),
    "numpy.load": ("numpy.load", "{}"),
    "pickle.loads": ("pickle.loads", "{}"),
    "_codecs.encode": ("_codecs.encode", "{}"),
    "__main__.Harm": ("__main__.Harm", "{}"),
    "torch.nn.modules.module.Module": ("torch.nn.modules.module.Module", "{}"),
    "torch.nn.modules.os.system": ("torch.nn.modules.os.system", TOUCH),
    "torch.FloatStorage": ("torch.FloatStorage", "{}"),
    "joblib.load": ("joblib.load", "{}"),
}


@both
@pytest.mark.parametrize("name", HARM)
def test_calls_are_refused_by_name_and_not_made(name, write, read, tmp_path, monkeypatch):
    function, text = HARM[name]
    harm = tmp_path / "harm"
    ran = []
    for module, attribute in ((os, "system"), (builtins, "eval"), (builtins, "exec")):
        monkeypatch.setattr(module, attribute, lambda *_: ran.append(1))
    call = Call(function, text.format(str(harm)))
    for value in (
        {"w": F4, "x": call},
        Call(function, call),
        Call("torch._utils._rebuild_parameter", call, True, Ordered()),
        Call("collections.OrderedDict", [call]),
        Call("torch.nn.modules.module.Module", state=call, opcode=b"\x81"),
    ):
        refused(read, write(value), rf"found (a call of )?{function}; expected only tensors")
    assert not ran
    assert not harm.exists()


@both
def test_names_of_other_opcodes(write, read):
    texts = b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system"
    for opcodes, words in (
        (texts + b"\x93(X\x01\x00\x00\x00xtR", "found os.system; expected only"),
        (b"(X\x01\x00\x00\x00xios\nsystem\n", "opcode INST"),
        (b"(" + name_of("models.A") + b"o", "opcode OBJ"),
        (name_of("models.A") + b")}\x92", "opcode NEWOBJ_EX"),
        (b"\x82\x01", "opcode EXT1"),
        (b"Psystem\n", "opcode PERSID"),
        (name_of("models.A") + b"X\x01\x00\x00\x00x\x85\x81", "an object with arguments of models"),
        (name_of("collections.OrderedDict") + b")\x81", "an object of collections.OrderedDict"),
        (b"X\x06\x00\x00\x00systemX\x01\x00\x00\x00x\x85R", "found str as what is called"),
        (name_of("models.A") + b")\x81)R", "found Stub as what is called"),
        (name_of("models.A") + b"}b", "a state for models.A"),
        (name_of("torch._utils._rebuild_tensor") + b"N}\x86b", "a state for torch._utils._reb"),
        (name_of("models.A") + b")\x81N}\x86b", "found tuple as the state of an object"),
    ):
        refused(read, write({"x": Raw(opcodes)}), words)


def test_a_stub_runs_no_method_that_its_state_names(read):
    names = ("__setstate__", "__reduce__", "__class__", "__del__", "__eq__", "kind", "state")
    held = {name: Raw(name_of("torch._utils._rebuild_tensor")) for name in names}
    stub = Call("models.A", state=held, opcode=b"\x81")
    found = read(zipped({"net": Raw(opcodes_of(stub) + b"}b")}))["net"]
    assert set(found.state) == set(names)
    assert str(found.kind) == "models.A"
    assert type(found) is Stub


@pytest.mark.parametrize(
    "id_",
    [
        "system",
        (),
        ("storage",),
        ("module", "models.A", "a", "b"),
        ("storage", Raw(name_of("torch.FloatStorage")), "0", "cpu", "24"),
        ("storage", Raw(name_of("torch.FloatStorage")), "0", "cpu", True),
        ("storage", Raw(name_of("torch.FloatStorage")), "0", "cpu", -1),
        ("storage", Raw(name_of("torch.FloatStorage")), 0, "cpu", 24),
        ("storage", Raw(name_of("models.FloatStorage")), "0", "cpu", 24),
        ("storage", Raw(name_of("torch.Size")), "0", "cpu", 24),
        ("storage", "torch.FloatStorage", "0", "cpu", 24),
    ],
    ids=str,
)
def test_ids_of_another_form(id_, read):
    opcodes = opcodes_of(id_) + b"Q"
    refused(read, zipped({"w": F4, "x": Raw(opcodes)}), "an id of another form")


@both
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"offset": 1}, "up to place 24 in a storage of 24"),
        ({"shape": (25,)}, "up to place 24"),
        ({"strides": (2,)}, "up to place 46"),
        ({"shape": (2**40, 2**40), "strides": (0, 0)}, "values up to place 0 in a storage"),
        ({"shape": (2,), "strides": (2**61,)}, "expected it to lie within"),
        ({"offset": -1}, "offset of a tensor that are not whole numbers"),
        ({"shape": (-1,)}, "sides of a tensor"),
        ({"strides": (-1,)}, "strides of a tensor"),
        ({"strides": (True,)}, "strides of a tensor"),
        ({"strides": (10**400,)}, "strides of a tensor"),
        ({"shape": (4, 6)}, "1 strides for 2 sides"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "sides of a tensor"),
        ({"size": 23}, "storage"),
        ({"size": 10**12}, "storage '0' of 1,000,000,000,000 values"),
        ({"size": 2**62}, "expected no more than"),
        ({"size": 10**100}, "expected no more than"),
    ],
)
def test_a_tensor_lies_within_its_storage_and_that_within_the_file(facts, words, write, read):
    refused(read, write({"w": Tensor(F4, **{"strides": (1,), **facts})}), words)


@both
def test_many_storages_are_no_larger_than_the_file_together(write, read):
    value = {str(n): Tensor(F4[:4], shape=(1,), size=100) for n in range(50)}
    refused(read, write(value), "storage")


def test_two_descriptions_of_a_storage(read):
    refused(
        read,
        zipped({"a": Tensor(F4, key="s"), "b": Tensor(F4.view(np.int32), key="s")}),
        "two descriptions",
    )


@pytest.mark.parametrize(
    ("opcodes", "words"),
    [
        (opcodes_of(Call("collections.OrderedDict", [1])), "OrderedDict of no pairs"),
        (opcodes_of(Call("collections.OrderedDict", [[(), 1]])), "key that is tuple"),
        (opcodes_of(Call("builtins.set", 1)), "a set of int"),
        (opcodes_of(Call("torch.device", 1)), "torch.device that is none"),
        (opcodes_of(Call("torch.device")), "found torch.device with arguments that it does not"),
        (b"K\x01\x86", "takes more values"),
        (b"0", "a mark it never set"),
        (b"h\x07", "refers to its value 7"),
        (b"t", "a mark it never set"),
        (b"K\x01K\x01K\x02s", "what keys are put into"),
        (b"}(K\x01u", "key without a value"),
        (b"})K\x01s", "key that is tuple"),
        (b"}" + b")" + b"\x85" * 100_000 + b"K\x01s", "key that is tuple"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f", "bytes"),
        (b"\x8a\x09", "not enough data"),
        (b"", "takes more values"),
        (b"\xff", "opcode"),
        (b"cbuiltins\n" + b"e" * 10_000 + b"\n", "builtins.e{91}; expected"),
        (b"cbuiltins\n\x1b[2J\n", r"builtins.\\x1b\[2J"),
    ],
)
def test_pickles_that_are_none(opcodes, words, read):
    refused(read, zipped({"x": 1}, entries={"data.pkl": b"\x80\x02" + opcodes + b"."}), words)


def test_a_high_index_of_the_memo_takes_no_room(read):
    high = b"r\xff\xff\xff\x7f"
    content = b"\x80\x02}" + high + b"X\x01\x00\x00\x00aj" + high[1:] + b"s."
    found = read(zipped({}, entries={"data.pkl": content}))
    assert found["a"] is found


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"data.pkl": None}, "without one data.pkl"),
        ({"data/0": None}, "no entry 'data/0'"),
        ({"data/0": b"1234"}, "found 4 bytes in storage '0'; expected 24 values"),
        ({"byteorder": b"middle"}, "neither little nor big"),
        ({"constants.pkl": b"x"}, "TorchScript program"),
    ],
)
def test_zip_files_that_are_none_of_torch(entries, words, read):
    refused(read, zipped({"w": F4}, entries=entries), words)


def test_zip_bombs(read):
    zeros = zipped({"w": np.zeros(10**7, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    assert len(zeros) < 10**5
    refused(read, zeros, "packed in")
    content = zipped({"w": F4, "v": F4})
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", content[end + 16 : end + 20])[0]
    entry = content.index(b"PK\x01\x02", start)
    for sizes in (10**9, 2**32 - 2):  # an entry that says to be larger than the file
        grown = bytearray(content)
        grown[entry + 20 : entry + 28] = struct.pack("<II", sizes, sizes)
        refused(read, bytes(grown), "stored in")


def test_legacy_files_that_are_none(read):
    whole = legacy({"w": F4})
    refused(read, pickle.dumps({"w": 1}, 2), "without PyTorch's mark")
    refused(read, pickle.dumps(os.system, 2), "found .*system; expected only")
    refused(read, whole.replace(b"M\xe9\x03.", b"M\xea\x03.", 1), "found protocol 1002")
    refused(read, whole + b"x", "1 bytes behind the last storage")
    refused(read, whole.replace(b"\x18" + bytes(7), b"\xff" * 8, 1), "of -1 values")
    refused(read, b"ustar", "no file of torch.save")
    refused(read, b"", "no file of torch.save")
    with pytest.raises(FileNotFoundError, match="found no file"):
        read_torch("nowhere.pth")


# Damage

STATE = {"conv.weight": F4.reshape(4, 6), "bn.running_mean": F4[:3].copy(), "n": np.array(5)}
FILES = {name: write(Ordered(STATE)) for name, write in FORMATS.items()}


@both
def test_cut_files(write, read):
    content = write(Ordered(STATE))
    for length in range(len(content)):
        refused(read, content[:length])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_an_error_or_data(name, data, tmp_path):
    """A zip file has checksums; without them, numbers and names may change, and nothing else."""
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    began = time.monotonic()
    try:
        found = state_dict_of(path)
    except ValueError:
        pass
    else:
        if name == "zip":
            same(found, STATE)
        assert all(isinstance(leaf, np.ndarray) for leaf in found.values())
    assert time.monotonic() - began < 5


# Every opcode with an argument that it may have, so that most pickles get some way.
OPCODES = [
    *(op.code.encode("latin-1") for op in pickletools.opcodes if op.arg is None),
    *(b"K\x01", b"K\x02", b"X\x01\x00\x00\x00a", b"U\x01b", b"q\x00", b"q\x01", b"h\x00", b"h\x01"),
    *(name_of("models.A"), name_of("models.A") + b")\x81", name_of("torch.FloatStorage")),
    *(name_of("collections.OrderedDict") + b")R", name_of("torch._utils._rebuild_tensor")),
    *(name_of("torch.Size"), name_of("__builtin__.set"), name_of("os.system")),
]


@settings(max_examples=500, suppress_health_check=list(HealthCheck), deadline=None)
@given(opcodes=st.lists(st.sampled_from(OPCODES), max_size=30).map(b"".join))
def test_any_opcodes_give_an_error_or_data(opcodes, tmp_path):
    content = zipped({}, entries={"data.pkl": b"\x80\x02" + opcodes + b"."})
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert isinstance(read_torch(path), dict)


# The command


@pytest.mark.parametrize("name", KINDS)
@both
def test_import_of_a_network_of_the_original_code(name, write, tmp_path, capsys):
    state = state_of(name)
    file, out = tmp_path / "net.t7", tmp_path / "run"
    file.write_bytes(write({"net": network_of(state), "acc": 61.0, "epoch": 4}))
    same(dict(sorted(state_dict_of(file).items())), dict(sorted(state.items())))
    __main__.main(["import", str(file), "--out", str(out), "--name", "pets"])
    printed = capsys.readouterr().out
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert f"ResNet-26 of the original code, resnet26, adapters: {KINDS[name]}" in printed
    assert f"{len(state) - len(counters)} of {len(state)} tensors used" in printed
    assert printed.endswith(f"{out}: pets\n")
    family = Family.load(out)
    assert family.fingerprint == family_of_original(state).fingerprint
    with pytest.raises(SystemExit, match="holds a family already"):
        __main__.main(["import", str(file), "--out", str(out)])


def test_import_takes_one_of_several_domains(tmp_path, capsys):
    """Both are on the same filters, so that one's file goes into the other's workdir."""
    state = state_of("parallel_2tasks")
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")

    def run(*arguments):
        __main__.main([*map(str, arguments)])

    for domain, name in enumerate(("digits", "letters")):
        out = tmp_path / name
        run("import", tmp_path / "net.safetensors", "--out", out, "--name", name,
            "--domain", domain)  # fmt: skip
        assert f"domain {domain} of 2" in capsys.readouterr().out
    run("save", tmp_path / "letters", "letters", tmp_path / "file.safetensors")
    run("swap", tmp_path / "digits", tmp_path / "file.safetensors")
    family = Family.load(tmp_path / "digits")
    assert {name: family[name].domain.num_classes for name in family} == {"digits": 5, "letters": 7}
    with pytest.raises(SystemExit, match=r"found --domain 2; expected 0 to 1"):
        run("import", tmp_path / "net.safetensors", "--out", tmp_path / "x", "--domain", 2)


def test_import_names_what_is_not_used(tmp_path, capsys):
    state = state_of("parallel_2tasks")
    (tmp_path / "net.pth").write_bytes(zipped(Ordered(state)))
    __main__.main(["import", str(tmp_path / "net.pth"), "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert "unused: linears.1.weight\n" in printed
    assert "unused: linears.0.weight" not in printed
    assert "pre_layers_conv.conv.weight" not in printed


def test_import_of_another_network_or_file_is_an_error(tmp_path):
    file = tmp_path / "net.pth"
    file.write_bytes(zipped({"features.0.weight": F4}))
    with pytest.raises(SystemExit, match=r"error: .*no known network: features\.0\.weight"):
        __main__.main(["import", str(file), "--out", str(tmp_path / "run")])
    file.write_bytes(zipped(Call("os.system", "true")))
    with pytest.raises(SystemExit, match=r"error: .*found os\.system"):
        __main__.main(["import", str(file), "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
