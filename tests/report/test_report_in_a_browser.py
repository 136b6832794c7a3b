"""The page in a real browser: drawn, quiet, legible at phone and desk, in light and dark, reachable by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.browser import chromium, complaints, emulate, look

VIEWS = [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def view(request: pytest.FixtureRequest, driver: Any, page: Path) -> tuple[int, list[str]]:
    """The page as one sees it: its width, and what the console said."""
    width, scheme = request.param
    look(driver, page, width, scheme)
    return width, complaints(driver)


def test_all_figures_are_drawn_and_the_console_is_silent(driver: Any, view: tuple[int, list[str]]) -> None:
    assert view[1] == []
    drawn, figures = driver.execute_script(
        """const boxes = [...document.querySelectorAll(".plot")];
        const shows = (box) => box.querySelector(".trace path, .trace .point, .heatmaplayer image, .points path");
        return [boxes.filter(shows).length, document.querySelectorAll("figure").length];"""
    )
    assert drawn == figures >= 15


def test_nothing_sticks_out(driver: Any, view: tuple[int, list[str]]) -> None:
    wide, outside = driver.execute_script(
        """const root = document.documentElement;
        const outside = [...document.querySelectorAll("p, h1, h2, h3, figure, .plot, .scroll, .facts, .legend")]
            .filter((each) => each.getBoundingClientRect().right > innerWidth + 1);
        return [root.scrollWidth, outside.map((each) => each.outerHTML.slice(0, 80))];"""
    )
    assert (wide, outside) == (view[0], [])


def test_text_has_contrast_in_the_page_and_its_figures(driver: Any, view: tuple[int, list[str]]) -> None:
    weak = driver.execute_script(
        """const light = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((c) => {
                const s = c / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const contrast = (l) => (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05);
        const texts = [...document.querySelectorAll("p, h1, h2, h3, td, .legend li, .plot text")]
            .filter((each) => each.textContent.trim() && each.getClientRects().length);
        return texts.map((each) => {
            const style = getComputedStyle(each);
            const color = each instanceof SVGElement ? style.fill : style.color;
            return [contrast(light(color)), each.textContent.slice(0, 40)]; }).filter(([c]) => c < 4.5);"""
    )
    assert weak == []


def test_figures_follow_the_scheme_when_it_changes(driver: Any, page: Path) -> None:
    look(driver, page, 1280, "light")
    color = "return getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    before = driver.execute_script(color)
    emulate(driver, 1280, "dark")
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert driver.execute_script(color) != before


def test_figures_follow_the_width_when_it_changes(driver: Any, page: Path) -> None:
    shown = """return [...document.querySelectorAll(".plot")].map((box) =>
        [box.offsetHeight, box.querySelectorAll("text").length]);"""
    look(driver, page, 1280, "light")
    wide = driver.execute_script(shown)
    look(driver, page, 390, "light")
    narrow = driver.execute_script(shown)
    emulate(driver, 1280, "light")
    driver.execute_async_script("setTimeout(arguments[0], 1000)")
    assert driver.execute_script(shown) == wide != narrow


def test_plotly_finds_nothing_wrong_with_any_figure(driver: Any, page: Path) -> None:
    look(driver, page, 1280, "light")
    wrong = driver.execute_script(
        """return [...document.querySelectorAll(".plot")].flatMap((box) =>
            (Plotly.validate(box.data, box.layout) || []).map((each) => each.msg));"""
    )
    assert wrong == []


def test_keyboard_reaches_everything_in_the_order_of_the_page(driver: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    look(driver, page, 1280, "light")
    reachable = (
        "return [...document.querySelectorAll('a, button, summary, .plot, .scroll')].every((e) => e.tabIndex === 0)"
    )
    assert driver.execute_script(reachable)
    seen = []
    for _ in range(30):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(
            driver.execute_script(
                """const all = [...document.querySelectorAll("*")], at = document.activeElement;
                const style = getComputedStyle(at);
                return [all.indexOf(at), at.className || at.tagName, style.outlineStyle !== "none"];"""
            )
        )
    places = [place for place, _, _ in seen]
    assert places == sorted(set(places))
    assert all(outlined for _, _, outlined in seen)
    kinds = [kind for _, kind, _ in seen]
    assert kinds[0] == "skip"
    assert sum("plot" in kind for kind in kinds) >= 3
    assert {"SUMMARY", "BUTTON", "scroll", "A"} <= set(kinds)


def test_arrows_walk_through_the_points_and_say_them(driver: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    look(driver, page, 1280, "light")
    figure = driver.find_element(By.CSS_SELECTOR, "figure")
    plot, said = figure.find_element(By.CSS_SELECTOR, ".plot"), figure.find_element(By.CSS_SELECTOR, ".said")
    driver.execute_script("arguments[0].focus()", plot)
    plot.send_keys(Keys.ARROW_RIGHT)
    first = said.text
    assert first.startswith("AdaBreg, 1%: 88.")
    plot.send_keys(Keys.ARROW_RIGHT)
    assert said.text not in ("", first)
    plot.send_keys(Keys.ARROW_LEFT)
    assert said.text == first


def test_headings_sort_by_number_and_back(driver: Any, page: Path) -> None:
    look(driver, page, 1280, "light")
    accuracies = """const table = document.querySelector("table.sortable"), head = table.tHead.rows[0];
        const column = [...head.cells].findIndex((cell) => cell.textContent.startsWith("test accuracy"));
        head.cells[column].querySelector("button").click();
        return [head.cells[column].getAttribute("aria-sort"),
                [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.value))];"""
    order, rising = driver.execute_script(accuracies)
    assert (order, rising) == ("ascending", sorted(rising))
    order, falling = driver.execute_script(accuracies)
    assert (order, falling) == ("descending", sorted(rising, reverse=True))
    assert len(set(rising)) > 3
