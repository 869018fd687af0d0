"""A branch whose books do not sum to zero does not open (DESIGN §2)."""

from __future__ import annotations

import apsw

from tests.acceptance.cluster import Cluster, wait_until


def test_a_branch_whose_books_are_off_does_not_open(cluster: Cluster) -> None:
    assert cluster.stop("Mumbai") == 0  # posts all, so that the tables are what the next start begins with
    books = apsw.Connection(str(cluster.data / "Mumbai.db"))
    books.execute("UPDATE accounts SET balance_minor = balance_minor + 1 WHERE number = '1001'")
    books.close()
    cluster.start("Mumbai", ready=False)
    wait_until(lambda: cluster.processes["Mumbai"].poll() is not None, what="the end of Mumbai")
    assert cluster.processes["Mumbai"].returncode == 2
    assert "sum to 1 minor units, not to zero: restore a backup" in cluster.output("Mumbai")
