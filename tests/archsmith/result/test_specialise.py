import pytest

from archsmith.result.export.specialise import Specialiser

CLASS = '''
class Op(Base):
    """Kept."""

    def __init__(self, c_in: int, c_out: int, *, affine: bool, search: bool = False, k: int = 1):
        super().__init__(*([Norm(c_in)] if search else []))
        self.norm = Norm(c_out, affine=affine, bias=not affine)
        self.project = (
            Identity()
            if c_in == c_out
            else Conv(c_in, c_out, affine=affine)
        )
        if k > 1:
            self.wide = True
        else:
            self.wide = False

    def forward(self, x):
        return x if self.wide else -x
'''.strip()
CUT = '''
class Op(Base):
    """Kept."""

    def __init__(self, c_in: int, c_out: int, *, k: int = 1):
        super().__init__()
        self.norm = Norm(c_out, bias=False)
        self.project = Identity()
        self.wide = True

    def forward(self, x):
        return x if self.wide else -x
'''.strip()
FUNCTION = """
def op(c_in: int, stride: int, *, affine: bool) -> Module:
    if stride == 2:
        return Reduce(c_in)
    elif stride == 1:
        return Identity()
    return Other()
""".strip()


def drops_affine(callee: object, keyword: str, value: object) -> bool:
    return keyword == "affine"


def cut(source: str, calls: list[dict], **filled: object) -> str:
    return Specialiser(source, calls, filled, drops_affine).text()


def test_branches_parameters_and_keywords_that_no_call_needs_go():
    call = {"c_in": 4, "affine": True, "search": False}
    calls = [call | {"c_out": 4, "k": 3}, call | {"c_in": 8, "c_out": 8, "k": 5}]
    assert cut(CLASS, calls, affine=True, search=False) == CUT


def test_a_condition_that_varies_stays():
    calls = [{"c_in": 4, "c_out": out, "k": k} for out in (4, 8) for k in (1, 3)]
    assert cut(CLASS, calls) == CLASS.replace(", affine=affine", "")


def test_without_calls_nothing_is_known():
    assert cut(CLASS, []) == CLASS.replace(", affine=affine", "")


@pytest.mark.parametrize(
    ("stride", "body"),
    [
        (2, "    return Reduce(c_in)"),
        (1, "    if stride == 1:\n        return Identity()\n    return Other()"),
    ],
)
def test_what_follows_a_return_goes_and_an_elif_becomes_an_if(stride, body):
    header = "def op(c_in: int, stride: int) -> Module:\n"
    assert cut(FUNCTION, [{"c_in": 4, "stride": stride}], affine=True) == header + body


def test_a_parameter_that_changes_in_the_body_decides_nothing():
    source = "def op(k: int):\n    k = k + 1\n    if k > 1:\n        return 1\n    return 2"
    assert cut(source, [{"k": 1}]) == source
