# The server over stdio, as you, so that the pictures are yours:
# docker run -i --rm -u "$(id -u):$(id -g)" -e GEMINI_API_KEY -v "$HOME/Pictures/nanobanana:/pictures" -v nanobanana:/state IMAGE
FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY nanobanana_mcp nanobanana_mcp
COPY migrations migrations
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["tool"]["uv"]["constraint-dependencies"], sep="\n")' > pins.txt \
    && python -m venv /studio \
    && /studio/bin/pip install --no-cache-dir --constraint pins.txt . \
    && /studio/bin/python -m compileall -q /studio

FROM python:3.13-slim
LABEL io.modelcontextprotocol.server.name="io.github.nanobanana-studio/nanobanana"
RUN useradd --create-home --uid 10001 studio && mkdir -m 1777 /pictures /state
COPY --from=build /studio /studio
USER studio
WORKDIR /home/studio
ENV NANOBANANA_OUTPUT_DIR=/pictures NANOBANANA_DATABASE_URL=sqlite:////state/library.db
VOLUME ["/pictures", "/state"]
ENTRYPOINT ["/studio/bin/nanobanana"]
