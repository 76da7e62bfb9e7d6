"""A pickle as data.

A pickle is a program: to load it is to run it, and it may call anything. Here its instructions build a description of
what it *would* make. Names on the list below become a `Name`, a call becomes a `Call` that is never made, and any other
name ends the import. There is no way from this file to a function that a pickle names.
"""

import pickletools

from . import Refused

STORAGES = {
    "torch.DoubleStorage": "f64",
    "torch.FloatStorage": "f32",
    "torch.HalfStorage": "f16",
    "torch.BFloat16Storage": "bf16",
    "torch.LongStorage": "i64",
    "torch.IntStorage": "i32",
    "torch.ShortStorage": "i16",
    "torch.CharStorage": "i8",
    "torch.ByteStorage": "u8",
    "torch.BoolStorage": "bool",
}
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
STORAGE_BYTES = "torch.storage._load_from_bytes"
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
ORDERED_DICT = "collections.OrderedDict"
# What checkpoints of the published code are made of. Modules and scalars are kept as they are described, unread.
KNOWN = {
    *STORAGES,
    TENSOR,
    PARAMETER,
    STORAGE_BYTES,
    PERSISTENT,
    ORDERED_DICT,
    "dnnlib.util.EasyDict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.Sequential",
}


class Name:
    """A function or class that a pickle names."""

    def __init__(self, name):
        self.name = name


class Call:
    """A call that a pickle asks for, and the state that it wants to give to the result."""

    def __init__(self, name, args):
        self.name, self.args, self.state = name, args, None


class Reference:
    """Something that lies outside of the pickle."""

    def __init__(self, key):
        self.key = key


class _Mark:
    pass


def read(file):
    """What the pickle at the file's position describes. Leaves the file behind the pickle."""
    machine = _Machine()
    try:
        for opcode, argument, position in pickletools.genops(file):
            machine.step(opcode.name, argument, position)
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, MemoryError) as error:
        raise Refused(f"not a pickle, or a damaged one ({error}); get the file again") from error
    return machine.result


class _Machine:
    def __init__(self):
        self.stack, self.memo, self.result = [], {}, None

    def step(self, name, argument, position):
        handler = _HANDLERS.get(name)
        if handler is None:
            raise Refused(f"the pickle has the instruction {name} at byte {position}, which no tensor needs")
        handler(self, argument)

    def pop(self):
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark in place of a value")
        return value

    def pop_mark(self):
        for index in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[index], _Mark):
                items = self.stack[index + 1:]
                del self.stack[index:]
                return items
        raise ValueError("no mark")

    def push(self, value):
        self.stack.append(value)

    def top(self, kind):
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
        return value

    def name(self, module, name):
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        full = f"{module}.{name}"
        if full not in KNOWN:
            raise Refused(f"the pickle names {full[:120]!r}, which no tensor needs: it could run a program. "
                          "Do not load this file with anything else; get the checkpoint from its authors")
        self.push(Name(full))

    def call(self, args, name):
        if not isinstance(name, Name) or not isinstance(args, tuple):
            raise ValueError("a call of something that is no name")
        # The only kind of call whose result is filled afterwards.
        self.push({} if name.name in (ORDERED_DICT, "dnnlib.util.EasyDict") and not args else Call(name.name, args))

    def fill(self, items):
        """Adds keys and values to what lies on top."""
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(_dict(items))
        elif not isinstance(target, Call):
            raise ValueError("keys for something that has none")

    def build(self):
        state, target = self.pop(), self.stack[-1]
        # The attributes of a dictionary, as some frameworks leave behind, hold no tensor.
        if isinstance(target, Call):
            target.state = state
        elif not isinstance(target, dict):
            raise ValueError("a state for something that has none")

    def remember(self, key):
        self.memo[key] = self.stack[-1]

    def stop(self):
        self.result = self.pop()


def _plain(value):
    """A key. Only plain ones: to find the place of a key made of parts is to follow them, as deep as they go."""
    if isinstance(value, (str, int, float, bytes, type(None))):
        return value
    raise ValueError("a key that is neither text nor number")


def _dict(items):
    if len(items) % 2:
        raise ValueError("a key without a value")
    return dict(zip(map(_plain, items[::2]), items[1::2]))


def _constant(machine, argument):
    machine.push(argument)


def _pair(machine, _):
    value, key = machine.pop(), machine.pop()
    machine.fill([key, value])


def _extend(machine, items):
    machine.top(list).extend(items)


def _add(machine, items):
    machine.top(set).update(map(_plain, items))


def _tuple(count):
    def handler(machine, _):
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))
    return handler


def _stack_name(machine, _):
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _named_call(machine, _):
    args = machine.pop()
    machine.call(args, machine.pop())


_HANDLERS = {
    **dict.fromkeys(["PROTO", "FRAME"], lambda machine, _: None),
    **dict.fromkeys(
        ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
         "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
         "BINBYTES8", "BYTEARRAY8"],
        _constant,
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_Mark()),
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": lambda machine, _: machine.push(_dict(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(_plain, machine.pop_mark()))),
    "APPEND": lambda machine, _: _extend(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_mark()),
    "ADDITEMS": lambda machine, _: _add(machine, machine.pop_mark()),
    "SETITEM": _pair,
    "SETITEMS": lambda machine, _: machine.fill(machine.pop_mark()),
    "PUT": lambda machine, key: machine.remember(key),
    "BINPUT": lambda machine, key: machine.remember(key),
    "LONG_BINPUT": lambda machine, key: machine.remember(key),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GET": lambda machine, key: machine.push(machine.memo[key]),
    "BINGET": lambda machine, key: machine.push(machine.memo[key]),
    "LONG_BINGET": lambda machine, key: machine.push(machine.memo[key]),
    "GLOBAL": lambda machine, both: machine.name(*both.split(" ", 1)),
    "STACK_GLOBAL": _stack_name,
    "REDUCE": _named_call,
    "NEWOBJ": _named_call,
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.push(Reference(machine.pop())),
    "STOP": lambda machine, _: machine.stop(),
}
