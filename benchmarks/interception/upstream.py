"""An upstream that answers at once: `python -m benchmarks.interception.upstream PORT`.

It paints nothing. It reads a request for pictures as an image server does and answers, so that
what is measured is the way there and back.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(openapi_url=None)


class Generation(BaseModel):
    """As `POST /v1/images/generations` takes it."""

    prompt: str
    n: int = 1


@app.post("/v1/images/generations")
async def generations(body: Generation) -> dict[str, list[str]]:
    return {"data": [""] * body.n}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
