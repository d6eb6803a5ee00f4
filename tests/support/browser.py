"""A headless browser, and what a person sees of the page in it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

DEADLINE_S = 20 * float(os.environ.get("WGMAP_TIME_SCALE", "1"))
T = TypeVar("T")
NEEDED = ("chromium", "chromedriver")
needs_browser = pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason="needs chromium and its driver (scripts/browser.sh)"
)


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get(address)

    def one(self, selector: str) -> WebElement:
        """Wait for an element and return it."""
        return self.until(lambda: next(iter(self.all(selector)), None), selector)

    def all(self, selector: str) -> list[WebElement]:
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def text(self, selector: str) -> str:
        text: str = self.driver.execute_script(
            "return document.querySelector(arguments[0])?.textContent ?? ''", selector
        )
        return text

    def says(self, selector: str, text: str) -> None:
        """Wait until an element has this text in it."""
        self.until(lambda: text in self.text(selector), f"{selector}: {text}")

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait for a condition and return its value."""
        wait = WebDriverWait(self.driver, DEADLINE_S, poll_frequency=0.05)
        value = wait.until(lambda _: condition(), f"not in time: {what}")
        assert value is not None, "it was waited for"
        return value

    def keys(self, text: str) -> None:
        """Press keys where the focus is."""
        ActionChains(self.driver).send_keys(text).perform()

    def shot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    def troubles(self) -> list[str]:
        """Return what the browser complained of since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextmanager
def browser(width: int = 1280, height: int = 900, *arguments: str) -> Iterator[Browser]:
    """Start a browser, and end it in any case."""
    options = webdriver.ChromeOptions()
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--window-size={width},{height}", "--force-device-scale-factor=1", *arguments),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
