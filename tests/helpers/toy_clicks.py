"""Toy files of data sets that ask for a point in an image, whose size VLMEvalKit reads off the image's file."""

from __future__ import annotations

from PIL import Image

from tests.helpers.toy_data_sets import Toy, image, key, question

WIDTH, HEIGHT = 24, 16  # of each toy image


def corner(index):
    return index % 5 * 4, index % 3 * 5


def element_rows(to_box, **columns):
    """Elements of screenshots; two of them are on one screenshot."""
    return [
        {
            **question(index),
            "image": image(index // 2),
            "image_path": f"screens/{index // 2}.png",
            "bbox": str(to_box(*corner(index))),
            **{name: value(index) for name, value in columns.items()},
        }
        for index in range(1, 25)
    ]


def corner_and_size(x, y):
    return [x, y, 4, 5]


def corners(x, y):
    return [x, y, x + 4, y + 5]


def click(row):
    x, y = corner(row["index"])
    return f"So: pyautogui.click(x={x + 2}, y={y + 2})"


def click_in_thousandths(row):
    x, y = corner(row["index"])
    return f"pyautogui.click(x={(x + 2) / WIDTH * 1000:.1f}, y={(y + 2) / HEIGHT * 1000:.1f})"


KINDS = {
    "category": lambda i: ["web", "mobile"][i % 2],
    "ui_type": lambda i: ["text", "icon"][i // 2 % 2],
    "application": lambda i: "toy",
}


def room_rows():
    """Places that are asked for, and questions of yes or no; each image is the row's own."""
    rows = []
    for index in range(24):
        x, y = corner(index)
        place = [(x / WIDTH, y / HEIGHT), ((x + 4) / WIDTH, y / HEIGHT), ((x + 2) / WIDTH, (y + 5) / HEIGHT)]
        category = ["context", "compatibility", "configuration"][index % 3]
        answer = str(place) if category == "context" else ["yes", "no"][index // 3 % 2]
        rows.append(question(index, answer=answer, category=category))
    return rows


def point(row):
    x, y = corner(row["index"])
    return f"({(x + 2) / WIDTH:.3f}, {(y + 1) / HEIGHT:.3f})" if row["category"] == "context" else row["answer"]


def place_rows(folder):
    """Places that are asked for, each the white part of a mask in a folder."""
    rows = []
    for index in range(24):
        mask, (x, y) = Image.new("L", (WIDTH, HEIGHT)), corner(index)
        mask.paste(255, (x, y, x + 4, y + 5))
        file = folder / f"masks/{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        mask.save(file)
        category = ["location", "placement", "unseen"][index % 3]
        rows.append(question(index, category=category, mask_path=str(file), answer=f"({x + 2}, {y + 2})"))
    return rows


TOYS: dict[str, Toy] = {
    **{
        name: Toy(
            lambda: element_rows(corner_and_size, data_type=KINDS["ui_type"], data_source=KINDS["category"]),
            key("Overall_Accuracy", 1),
            right=click,
            opens_images=True,
        )
        for name in ("ScreenSpot_Mobile", "ScreenSpot_v2_Web")
    },
    **{
        name: Toy(lambda: element_rows(corners, **KINDS), key("Overall_Accuracy", 1), right=click, opens_images=True)
        for name in ("ScreenSpot_Pro_CAD", "VBGD")
    },
    "OSWorld_G": Toy(
        lambda: element_rows(corner_and_size, **KINDS),
        key("Overall_Accuracy", 1),
        right=click_in_thousandths,
        opens_images=True,
    ),
    "RoboSpatialHome": Toy(room_rows, key("accuracy", 1), right=point, opens_images=True),
}
