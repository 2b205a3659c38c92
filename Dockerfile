# The binary of `just dist` and the CA certificates for TLS. Build with --platform linux/amd64 or linux/arm64.
# This stage provides only files, so it can run on the platform of the build.
FROM --platform=$BUILDPLATFORM debian:12-slim AS certificates
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates

FROM scratch
ARG TARGETARCH
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY dist/biscuit-${TARGETARCH} /biscuit
# Folder for temporary files of runs that do not fit into memory.
COPY --from=certificates /var/tmp /tmp
ENTRYPOINT ["/biscuit"]
