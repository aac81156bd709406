"""A FastAPI service that takes files and works on them in the background, in the same process: what it accepted survives a crash.

    pip install PATH-OF-THIS-REPOSITORY fastapi uvicorn
    uvicorn main:api

    curl --data-binary @film.mp4 http://127.0.0.1:8000/files
    curl http://127.0.0.1:8000/files/<id>

With many files, leave the worker to a process of its own: LITETQ_APART=1 uvicorn main:api, and  litetq -A tasks worker
"""

import os
import tempfile
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from tasks import app, checksum

UPLOADS = Path("uploads")


@asynccontextmanager
async def lifespan(api):
    UPLOADS.mkdir(exist_ok=True)
    # Leaving the block lets a running task finish; what waits is done after the next start.
    with nullcontext() if os.environ.get("LITETQ_APART") else app.run_embedded(concurrency=2):
        yield


api = FastAPI(lifespan=lifespan)


@api.post("/files", status_code=202)
async def take(request: Request):
    handle, path = tempfile.mkstemp(dir=UPLOADS)
    with open(handle, "wb") as file:
        async for piece in request.stream():
            file.write(piece)
    result = await checksum.adelay(path)  # when this returns, the task is in the file
    return {"id": result.id}


@api.get("/files/{id}")
async def look(id: str):
    result = app.AsyncResult(id)
    if not result.exists():
        raise HTTPException(404, "there is no such file")
    if result.failed():
        return {"state": result.state, "error": str(result.result)}
    return {"state": result.state, "result": result.result}
