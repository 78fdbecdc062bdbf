//! One connection from its first byte to its last.

use std::sync::Arc;

use rand::rngs::ChaCha8Rng;
use tokio::sync::mpsc;
use whatsapp_rust::async_channel;
use whatsapp_rust::bytes::{Bytes, BytesMut};
use whatsapp_rust::transport::TransportEvent;
use whatsapp_rust::wacore::framing::{FrameDecoder, encode_frame};
use whatsapp_rust::wacore::handshake::NoiseCipher;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore::net::DisconnectReason;
use whatsapp_rust::wacore_binary::consts::WA_CONN_HEADER;
use whatsapp_rust::wacore_binary::{Node, marshal, util};

use crate::noise::{Established, Hello, hello};
use crate::server::Shared;
use crate::state::Out;

/// Bytes from a client and to it, whatever carries them.
pub(crate) struct Wire {
    pub(crate) from_client: async_channel::Receiver<Bytes>,
    pub(crate) to_client: async_channel::Sender<TransportEvent>,
}

/// The first bytes of a connection: routing information that may come first, then what every client begins with.
const ROUTING: &[u8] = b"ED\0\x01";

/// A client that broke the protocol, or went away.
struct Ended;

struct Reader {
    wire: async_channel::Receiver<Bytes>,
    frames: FrameDecoder,
}

impl Reader {
    /// Reads over what comes before the first frame.
    async fn begin(&mut self) -> Result<(), Ended> {
        let mut start: Vec<u8> = Vec::new();
        loop {
            let rest = match start.strip_prefix(ROUTING) {
                None => Some(start.as_slice()),
                Some(routed) if routed.len() >= 3 => {
                    let length = usize::from(routed[0]) << 16 | usize::from(routed[1]) << 8 | usize::from(routed[2]);
                    routed.get(3 + length..)
                }
                Some(_) => None,
            };
            if let Some(rest) = rest
                && rest.len() >= WA_CONN_HEADER.len()
            {
                let frames = rest.strip_prefix(&WA_CONN_HEADER[..]).ok_or(Ended)?;
                self.frames.feed(frames);
                return Ok(());
            }
            start.extend_from_slice(&self.wire.recv().await.map_err(|_| Ended)?);
        }
    }

    async fn frame(&mut self) -> Result<BytesMut, Ended> {
        loop {
            if let Some(frame) = self.frames.decode_frame() {
                return Ok(frame);
            }
            let bytes = self.wire.recv().await.map_err(|_| Ended)?;
            self.frames.feed(&bytes);
        }
    }
}

struct Writer {
    wire: async_channel::Sender<TransportEvent>,
}

impl Writer {
    async fn frame(&self, payload: &[u8]) -> Result<(), Ended> {
        let frame = encode_frame(payload, None).map_err(|_| Ended)?;
        self.wire
            .send(TransportEvent::DataReceived(frame.into()))
            .await
            .map_err(|_| Ended)
    }
}

/// Serves a client until one of the two sides ends it.
pub(crate) async fn serve(shared: Arc<Shared>, wire: Wire) {
    let mut reader = Reader {
        wire: wire.from_client,
        frames: FrameDecoder::new(),
    };
    let writer = Writer { wire: wire.to_client };
    let handshake_for = shared.handshake_for;
    if let Ok(Ok(established)) = tokio::time::timeout(handshake_for, shake_hands(&shared, &mut reader, &writer)).await {
        converse(&shared, established, &mut reader, &writer).await;
    }
    reader.wire.close();
    // The client may have gone first.
    let _ = writer
        .wire
        .send(TransportEvent::Disconnected(DisconnectReason::StreamEnded))
        .await;
    writer.wire.close();
}

async fn shake_hands(shared: &Shared, reader: &mut Reader, writer: &Writer) -> Result<Established, Ended> {
    reader.begin().await?;
    let first = reader.frame().await?;
    let (server, certificates, mut rng): (KeyPair, Vec<u8>, ChaCha8Rng) = shared.with(|state| {
        let number = state.next();
        (
            state.server_key.clone(),
            state.keys.cert_chain(),
            state.keys.rng("ephemeral", &number.to_string()),
        )
    });
    let ended = |error| {
        tracing::debug!(%error, "a client's handshake failed");
        Ended
    };
    match hello(&first, &server, &certificates, KeyPair::generate(&mut rng)).map_err(ended)? {
        Hello::Done(answer, established) => {
            writer.frame(&answer).await?;
            Ok(*established)
        }
        Hello::Finish(answer, awaiting) => {
            writer.frame(&answer).await?;
            let second = reader.frame().await?;
            awaiting.finish(&second).map_err(ended)
        }
    }
}

async fn converse(shared: &Shared, established: Established, reader: &mut Reader, writer: &Writer) {
    let (out, mut outbound) = mpsc::channel(shared.outbound_max);
    let link = shared.with(|state| state.admit(out, &established));
    let (mut read_count, mut write_count) = (0, 0);
    loop {
        let ended = tokio::select! {
            biased;
            next = outbound.recv() => match next {
                Some(Out::Stanza(node)) => write(&established.writing, &mut write_count, &node, writer).await,
                Some(Out::Close) | None => Err(Ended),
            },
            frame = reader.frame() => match frame.and_then(|frame| read(&established.reading, &mut read_count, frame)) {
                Ok(node) => {
                    shared.with(|state| state.on_stanza(link, &node));
                    Ok(())
                }
                Err(ended) => Err(ended),
            },
        };
        if ended.is_err() {
            break;
        }
    }
    shared.with(|state| state.gone(link));
}

fn read(cipher: &NoiseCipher, count: &mut u32, mut frame: BytesMut) -> Result<Node, Ended> {
    cipher
        .decrypt_in_place_with_counter(*count, &mut frame)
        .map_err(|_| Ended)?;
    *count += 1;
    let plain = util::unpack(&frame).map_err(|_| Ended)?;
    Ok(marshal::unmarshal_ref(&plain).map_err(|_| Ended)?.to_owned())
}

async fn write(cipher: &NoiseCipher, count: &mut u32, node: &Node, writer: &Writer) -> Result<(), Ended> {
    let plain = marshal::marshal(node).map_err(|_| Ended)?;
    let sealed = cipher.encrypt_with_counter(*count, &plain).map_err(|_| Ended)?;
    *count += 1;
    writer.frame(&sealed).await
}
