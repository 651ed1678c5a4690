# Every service as a program of its own: /ingest /query /accounts /projector /mcp
# /console. Static, so that nothing else is in the image.
FROM scratch
COPY root/ /
COPY --chown=65532:65532 empty/ /data/
USER 65532:65532
ENV SHIPLEDGER_DATA=/data \
    SHIPLEDGER_ADDR=0.0.0.0:8080 \
    SHIPLEDGER_INGEST_ADDR=0.0.0.0:8081 \
    SHIPLEDGER_QUERY_ADDR=0.0.0.0:8082 \
    SHIPLEDGER_ACCOUNTS_ADDR=0.0.0.0:8083 \
    SHIPLEDGER_PROJECTOR_ADDR=0.0.0.0:8084 \
    SHIPLEDGER_MCP_ADDR=0.0.0.0:8085 \
    SHIPLEDGER_METRICS_ADDR=0.0.0.0:9464 \
    SHIPLEDGER_LOG_FORMAT=json
VOLUME /data
EXPOSE 8080 8081 8082 8083 8084 8085 9464
CMD ["/console"]
