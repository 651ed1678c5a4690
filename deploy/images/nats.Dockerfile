# The NATS server of go.mod, for where no image registry can be reached; nats:2.15
# takes the same flags. Only what is started with sync_interval always is durable.
FROM scratch
COPY nats-server /nats-server
COPY nats.conf /etc/nats.conf
COPY --chown=65532:65532 empty/ /data/
USER 65532:65532
VOLUME /data
EXPOSE 4222 8222
ENTRYPOINT ["/nats-server"]
CMD ["-c", "/etc/nats.conf"]
