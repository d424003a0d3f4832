"""What the tests of the engines share. They use the images of the other tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fleets  # noqa: E402
import pytest  # noqa: E402
from fleets import Fleet  # noqa: E402
from needs import need, package  # noqa: E402


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return fleets.make(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """Spark with two executors, which are processes of their own."""
    need("java", shutil.which("java") is not None)
    sql = package("pyspark.sql", "pyspark")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        sql.SparkSession.builder.master("local-cluster[2,1,512]")
        .appName("vhdx-mmap")
        .config("spark.executor.memory", "512m")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.sql.session.timeZone", "UTC")
        # Work begins when both executors are there.
        .config("spark.scheduler.minRegisteredResourcesRatio", "1.0")
        .config("spark.scheduler.maxRegisteredResourcesWaitingTime", "300s")
        .getOrCreate()
    )
    # What a killed executor and the end have to say.
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
