"""A headless Chromium that looks at pages as phones and desks do, in light and dark, and says what went wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"),
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A driver of a browser with a profile of its own; the test is skipped where there is none."""
    browser, driver = (
        next((found for name in names if (found := shutil.which(name))), None)
        for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    )
    if not browser or not driver:
        pytest.skip("Chromium or its driver is not installed: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the extra dev has it")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield started
    finally:
        started.quit()


def look(driver: Any, page: Path, width: int, scheme: str) -> None:
    """Open a page at a width under a colour scheme, and wait until all is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    emulate(driver, width, scheme)
    driver.get(page.resolve().as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.drawn"))


def emulate(driver: Any, width: int, scheme: str) -> None:
    """Set width and colour scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def complaints(driver: Any) -> list[str]:
    """What the console has said since it was asked last, but for plain messages."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
