# Builds on amd64 and arm64: docker build -t wa-server .
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# Without the demonstration, and so without the simulated WhatsApp.
RUN cargo build --release --locked --no-default-features -p wa-server-example

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --create-home --home-dir /data wa
COPY --from=build /src/target/release/wa-server-example /usr/local/bin/wa-server
USER wa
WORKDIR /data
ENV DATA_DIR=/data BIND_ADDRESS=0.0.0.0 PORT=3000
VOLUME /data
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["wa-server"]
CMD ["serve"]
