"""
A page to try a recommender on: search items, build a history, see what it recommends and what it thought.

    python recipes/demo.py --model outputs/lasar
    python recipes/demo.py --model outputs/lares --port 7861

The page is served to this machine alone; --share yes makes a public link through Gradio's servers. Apart from that,
nothing is sent anywhere, and nothing is loaded from anywhere. Needs: pip install 'hf_latentrec[demo,plots]'.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

try:
    import gradio as gr
except ImportError as error:
    raise ImportError(
        "recipes/demo.py needs gradio, which is not installed; pip install 'hf_latentrec[demo]'"
    ) from error

import demo_app as app


if TYPE_CHECKING:
    from demo_app import DemoModel


FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # of the visitor's machine
CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
#matches .wrap, #history .wrap {flex-flow: column nowrap; align-items: stretch; max-height: 22rem; overflow-y: auto}
#matches label, #history label {flex-shrink: 0; overflow-wrap: anywhere}
#table table {width: 100%; border-collapse: collapse; border: none !important}
#table tr {border: none !important}
#table th, #table td {padding: .4rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere;
    border: none !important; border-bottom: 1px solid rgba(128, 128, 128, .3) !important}
#table th {overflow-wrap: normal}
#table td:nth-child(2) {width: 60%}
#table td:first-child, #table td:nth-child(3) {font-variant-numeric: tabular-nums; white-space: nowrap}
#table small {display: block; opacity: .7; color: inherit}
#attention {overflow-x: auto !important; max-width: calc(100vw - 4rem)}
#attention > :not(.icon-button-wrapper) {min-width: 560px}
#attention img {max-width: 800px}
#correlation img, #gates img {max-width: 420px}
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or hub id of a trained model")
    parser.add_argument("--port", type=int, help="of the page; the first free one from 7860 on by default")
    parser.add_argument("--share", choices=["yes", "no"], default="no", help="make a public link (default: no)")
    return parser


def build(model: DemoModel) -> gr.Blocks:
    """The page of a model."""
    num_items, depth = len(model.labels), model.depth
    with gr.Blocks(title="Next items", analytics_enabled=False) as page:
        history = gr.State([])
        gr.Markdown("# What comes next?")
        with gr.Row():
            with gr.Column():
                query = gr.Textbox(label=f"Search {num_items:,} items", placeholder="title or id", elem_id="query")
                matches = gr.Radio(_choices(model, app.search(model, "")), label="Choose to add", elem_id="matches")
            with gr.Column():
                chosen = gr.Radio([], label="History, oldest first", elem_id="history")
                with gr.Row():
                    buttons = {
                        name: gr.Button(name, size="sm", min_width=60) for name in ("Up", "Down", "Remove", "Clear")
                    }
        with gr.Row():
            top_k = gr.Slider(
                1, min(50, num_items), value=min(10, num_items), step=1, label="Items to recommend", min_width=320
            )
            exclude_seen = gr.Checkbox(label="Leave out what is in the history", min_width=320)
            inputs = [history, top_k, exclude_seen, *([] if depth is None else [_depth_control(depth)])]
        recommend = gr.Button("Recommend", variant="primary", elem_id="recommend")
        thoughts = gr.Textbox(
            label="What the model thought", elem_id="thoughts", visible=False, interactive=False, lines=2
        )
        table = gr.HTML(elem_id="table")
        pictures = [_picture("attention")]
        with gr.Row():
            pictures += [_picture("correlation"), _picture("gates")]

        quick: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        query.input(partial(_found, model), query, matches, trigger_mode="always_last", **quick)
        matches.input(partial(_added, model), [history, matches], [history, chosen, matches], **quick)
        edits = {"Up": _up, "Down": _down, "Remove": _removed, "Clear": _cleared}
        for name, edit in edits.items():
            buttons[name].click(partial(edit, model), [history, chosen], [history, chosen], **quick)
        # One at a time: looking into a model changes its mode for a moment.
        recommend.click(
            partial(_answered, model),
            inputs,
            [table, thoughts, *pictures],
            concurrency_limit=1,
            api_visibility="private",
        )
    return page


def launch(page: gr.Blocks, **settings: Any) -> None:
    """Serves a page whose fonts are the visitor's own, with nothing from other servers."""
    page.launch(
        theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "Consolas", "monospace"]),
        css=CSS,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        **settings,
    )


# What happens when something is clicked


def _choices(model: DemoModel, item_ids: Sequence[str]) -> list[tuple[str, str]]:
    return [(app.choice(model, item_id), item_id) for item_id in item_ids]


def _found(model: DemoModel, query: str):
    found = app.search(model, query)
    return gr.Radio(_choices(model, found), value=None, label="Choose to add" if found else "Nothing found")


def _shown(model: DemoModel, history: list[str], place: int | None):
    names = [(f"{row + 1}. {app.choice(model, item_id)}", row) for row, item_id in enumerate(history)]
    return history, gr.Radio(names, value=place)


def _added(model: DemoModel, history: list[str], item_id: str):
    return *_shown(model, [*history, item_id], len(history)), gr.Radio(value=None)


def _up(model: DemoModel, history: list[str], place: int | None):
    return _shown(model, *app.move(history, place, -1))


def _down(model: DemoModel, history: list[str], place: int | None):
    return _shown(model, *app.move(history, place, 1))


def _removed(model: DemoModel, history: list[str], place: int | None):
    rest = app.remove(history, place)
    return _shown(model, rest, min(place or 0, len(rest) - 1) if rest else None)


def _cleared(model: DemoModel, history: list[str], place: int | None):
    return _shown(model, [], None)


def _answered(model: DemoModel, *chosen: Any):
    answer = app.answer(model, *chosen)
    pictures = [gr.Image(picture, visible=picture is not None) for picture in answer.pictures.values()]
    return answer.table, gr.Textbox(answer.thoughts, visible=True), *pictures


def _picture(name: str):
    return gr.Image(elem_id=name, visible=False, format="png", show_label=False, buttons=["fullscreen"])


def _depth_control(depth: app.Depth):
    if app.OWN_DEPTH in depth.values:
        return gr.Dropdown(depth.values, value=depth.default, label=depth.label, min_width=320)
    return gr.Slider(depth.values[0], depth.values[-1], value=depth.default, step=1, label=depth.label, min_width=320)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, and serves the page until it is interrupted."""
    options = make_parser().parse_args(arguments)
    launch(build(app.DemoModel.load(options.model)), server_port=options.port, share=options.share == "yes")


if __name__ == "__main__":
    main()
