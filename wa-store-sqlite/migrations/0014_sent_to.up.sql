-- What a device sent to a person is found by the person: one index less for each message that is sent.
DROP INDEX messages_sent_to;
