"""PyTorch's two file formats, written by hand: opcodes of protocol 2, and storages."""

import io
import pickle
import struct
import zipfile

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
CLASSES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Raw:
    """Opcodes that are written as they are."""

    def __init__(self, opcodes):
        self.opcodes = opcodes

    def __repr__(self):
        return f"Raw({self.opcodes!r})"


class Call:
    """A name that is called with arguments; with a state, BUILD follows."""

    def __init__(self, name, *arguments, state=None, opcode=b"R"):
        self.name, self.arguments, self.state, self.opcode = name, arguments, state, opcode


class Module:
    """A network object of PyTorch."""

    def __init__(self, kind, parameters=(), buffers=(), modules=(), **others):
        self.kind = kind
        self.state = {
            "training": True,
            "_parameters": Ordered(parameters),
            "_buffers": Ordered(buffers),
            "_modules": Ordered(modules),
            **others,
        }


class Ordered(dict):
    """An OrderedDict in the file."""


class Tensor:
    """A view of a storage; `key` is that of a storage which several views share."""

    def __init__(self, storage, offset=0, shape=None, strides=None, key=None, size=None):
        self.storage = np.array(storage, order="C")
        self.offset, self.key = offset, key
        self.shape = self.storage.shape if shape is None else shape
        self.strides = strides or [step // self.storage.itemsize for step in self.storage.strides]
        self.size = self.storage.size if size is None else size


def name_of(dotted):
    module, _, name = dotted.rpartition(".")
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


class Writer:
    """A pickle, and the storages that it refers to."""

    def __init__(self, legacy=False):
        self.legacy = legacy
        self.storages = {}

    def pickled(self, value):
        return b"\x80\x02" + self.opcodes(value) + b"."

    def opcodes(self, value):
        match value:
            case Raw():
                return value.opcodes
            case Module():
                return self.module(value)
            case Call():
                built = b"" if value.state is None else self.opcodes(value.state) + b"b"
                arguments = self.opcodes(tuple(value.arguments))
                return name_of(value.name) + arguments + value.opcode + built
            case Tensor():
                return self.tensor(value)
            case np.ndarray():
                return self.tensor(Tensor(value))
            case dict():
                start = b"}" if type(value) is dict else name_of("collections.OrderedDict") + b")R"
                pairs = (self.opcodes(key) + self.opcodes(it) for key, it in value.items())
                return start + b"(" + b"".join(pairs) + b"u"
            case tuple():
                return b"(" + b"".join(map(self.opcodes, value)) + b"t"
            case list():
                return b"](" + b"".join(map(self.opcodes, value)) + b"e"
            case _:
                return pickle.dumps(value, 2)[2:-1]

    def module(self, module):
        kind = name_of(module.kind)
        if self.legacy:  # a class comes with the path and text of its source
            kind = b"(" + self.opcodes("module") + kind + self.opcodes("/m.py")
            kind += self.opcodes("raise SystemExit") + b"tQ"
        return kind + b")\x81" + self.opcodes(module.state) + b"b"

    def tensor(self, it):
        key = it.key or str(len(self.storages))
        self.storages[key] = it.storage
        id_ = ("storage", Raw(name_of(f"torch.{CLASSES[it.storage.dtype.name]}")), key, "cuda:0")
        id_ = (*id_, it.size, *([None] if self.legacy else []))
        storage = Raw(self.opcodes(id_) + b"Q")
        rest = (it.offset, tuple(it.shape), tuple(it.strides))
        name = "torch._utils._rebuild_tensor"
        if not self.legacy:
            name, rest = f"{name}_v2", (*rest, False, Ordered())
        return self.opcodes(Call(name, storage, *rest))


def flat(storage, order="<"):
    """Return the bytes of a storage."""
    values = storage.ravel()
    if values.dtype.name == "bfloat16":
        values = values.view(np.uint16)
    return values.astype(values.dtype.newbyteorder(order)).tobytes()


def zipped(value, order="<", compression=zipfile.ZIP_STORED, entries=None):
    """Return a value as a file of PyTorch since 1.6; `entries` replace its own."""
    writer, stream = Writer(), io.BytesIO()
    found = {"data.pkl": writer.pickled(value)}
    found["byteorder"] = b"little" if order == "<" else b"big"
    found |= {f"data/{key}": flat(it, order) for key, it in writer.storages.items()}
    found |= {"version": b"3\n", **(entries or {})}
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in found.items():
            if content is not None:
                archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def legacy(value):
    """Return a value as a file of PyTorch before 1.6."""
    writer = Writer(legacy=True)
    facts = {"protocol_version": PROTOCOL, "little_endian": True}
    parts = [writer.pickled(it) for it in (MAGIC, PROTOCOL, facts, value)]
    parts.append(writer.pickled(sorted(writer.storages)))
    for key in sorted(writer.storages):
        parts += [struct.pack("<q", writer.storages[key].size), flat(writer.storages[key])]
    return b"".join(parts)


FORMATS = {"zip": zipped, "legacy": legacy}


def network_of(state_dict):
    """Return a whole network object with this state."""

    def module(leaves):
        own = {name: it for name, it in leaves.items() if "." not in name}
        children = {name.split(".")[0]: None for name in leaves if "." in name}
        for child in children:
            below = {
                name.removeprefix(f"{child}."): it
                for name, it in leaves.items()
                if name.startswith(f"{child}.")
            }
            children[child] = module(below)
        buffers = {n: it for n, it in own.items() if n.startswith(("running", "num_"))}
        parameters = {
            n: Call("torch._utils._rebuild_parameter", it, True, Ordered())
            for n, it in own.items()
            if n not in buffers
        }
        kind = "models.Block" if children else "torch.nn.modules.conv.Conv2d"
        return Module(kind, parameters, buffers, children)

    return module(state_dict)
