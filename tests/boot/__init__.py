import pytest

# its checks are to show what they compared
pytest.register_assert_rewrite("tests.boot.evidence", "tests.boot.matrix", "tests.boot.measured")
