//! Pictures, up and down, within the process and over HTTP.

use async_trait::async_trait;
use whatsapp_rust::anyhow;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::client::Client;
use whatsapp_rust::download::MediaType;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, SendOptions};

use std::sync::Arc;

use wa_loopback::{MediaFault, RewriteHost, Rule, Seen};
use whatsapp_rust::transport::TokioWebSocketTransportFactory;

use crate::support::{LIMIT, Watched, linked, server};

const PICTURE: &[u8] = b"not really a picture, but nobody here looks at it";

async fn picture(client: &Client) -> anyhow::Result<wa::Message> {
    let upload = client
        .upload(PICTURE.to_vec(), MediaType::Image, Default::default())
        .await?;
    let image = wa::message::ImageMessage {
        url: Some(upload.url),
        direct_path: Some(upload.direct_path),
        media_key: Some(upload.media_key.to_vec()),
        file_sha256: Some(upload.file_sha256.to_vec()),
        file_enc_sha256: Some(upload.file_enc_sha256.to_vec()),
        file_length: Some(upload.file_length),
        mimetype: Some("image/jpeg".to_owned()),
        caption: Some("harga baru".to_owned()),
        ..Default::default()
    };
    Ok(wa::Message {
        image_message: MessageField::some(image),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_picture_is_uploaded_once_and_decrypted_by_who_gets_it() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    let message = picture(&device.client).await.unwrap();
    device
        .client
        .send_message_with_options(Jid::pn("60111111111"), message, SendOptions::default())
        .await
        .unwrap();
    let received = person.next_message(LIMIT).await.unwrap();
    assert_eq!(received.text(), Some("harga baru"));
    assert_eq!(person.download(&received).await.unwrap(), PICTURE);
    server.expire_media();
    assert!(person.download(&received).await.is_err());
}

#[tokio::test]
async fn an_upload_refused_with_401_is_tried_again_with_a_new_permission() {
    let server = server();
    let device = linked(&server, "60122222222").await;
    let rule = server.fault(Rule::upload(MediaFault::Status(401)));
    picture(&device.client).await.unwrap();
    assert_eq!(server.fired(rule), 1);
    let statuses: Vec<u16> = server
        .journal()
        .into_iter()
        .filter_map(|record| match record.seen {
            Seen::Uploaded { status, .. } => Some(status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [401, 200]);
}

#[tokio::test]
async fn uploads_and_downloads_fail_as_the_script_says() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    for fault in [MediaFault::Status(507), MediaFault::Broken] {
        let rule = server.fault(Rule::upload(fault).always());
        assert!(picture(&device.client).await.is_err(), "{fault:?}");
        server.clear_fault(rule);
    }
    let message = picture(&device.client).await.unwrap();
    device
        .client
        .send_message_with_options(Jid::pn("60111111111"), message, SendOptions::default())
        .await
        .unwrap();
    let received = person.next_message(LIMIT).await.unwrap();
    let rule = server.fault(Rule::download(MediaFault::Status(403)).always());
    assert!(person.download(&received).await.is_err());
    server.clear_fault(rule);
    assert_eq!(person.download(&received).await.unwrap(), PICTURE);
}

struct OverReqwest(reqwest::Client);

#[async_trait]
impl HttpClient for OverReqwest {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, anyhow::Error> {
        let method: reqwest::Method = request.method.parse()?;
        let body = request.body.unwrap_or_default();
        let answer = self.0.request(method, request.url).body(body).send().await?;
        Ok(HttpResponse {
            status_code: answer.status().as_u16(),
            body: answer.bytes().await?.to_vec(),
        })
    }
}

#[tokio::test]
async fn the_same_goes_over_sockets() {
    let server = server();
    let listener = server.listen().await.unwrap();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let backend = Arc::new(InMemoryBackend::new());
    let jid = server.seed_device("60122222222", &*backend).await.unwrap();
    // Nothing here speaks TLS, but the client wants to know with whose cryptography it would.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = RewriteHost::new(OverReqwest(reqwest::Client::new()), listener.media_url());
    let websocket = TokioWebSocketTransportFactory::new().with_url(listener.websocket_url());
    let device = Watched::start_over(websocket, http, backend).await;
    device.connected().await;

    let message = picture(&device.client).await.unwrap();
    device
        .client
        .send_message_with_options(Jid::pn("60111111111"), message, SendOptions::default())
        .await
        .unwrap();
    let received = person.next_message(LIMIT).await.unwrap();
    assert_eq!(person.download(&received).await.unwrap(), PICTURE);
    device.receipt(&received.id, "Delivered").await;
    device.handle.shutdown().await;
    server
        .wait(LIMIT, "the connection to end", |record| {
            matches!(&record.seen, Seen::Disconnected { device } if *device == jid).then_some(())
        })
        .await
        .unwrap();
}
