# The binary that `just dist` makes, and what TLS needs. Build with --platform linux/amd64 or linux/arm64.
# Only files come of this, so that it need not be of the wanted platform.
FROM --platform=$BUILDPLATFORM debian:12-slim AS certificates
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates

FROM scratch
ARG TARGETARCH
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY dist/biscuit-${TARGETARCH} /biscuit
# A folder for what does not fit into memory.
COPY --from=certificates /var/tmp /tmp
ENTRYPOINT ["/biscuit"]
