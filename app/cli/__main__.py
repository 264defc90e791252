"""``python -m app.cli`` is ``forklift``."""

from app.cli.entry import run

if __name__ == "__main__":
    run()
