//! Linking a device, by QR code and by pairing code; the phone's part is played by the server.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use whatsapp_rust::buffa::Message;
use whatsapp_rust::wacore::companion_reg::NATIVE_CAMERA_DEEP_LINK_PREFIX;
use whatsapp_rust::wacore::crypto::hkdf_sha256_into;
use whatsapp_rust::wacore::libsignal::crypto::aes_256_gcm_decrypt;
use whatsapp_rust::wacore::libsignal::protocol::{KeyPair, PublicKey};
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, NodeBuilder};

use crate::account::{DeviceRecord, SignedPrekey};
use crate::error::PairingError;
use crate::fault::StreamFault;
use crate::journal::Seen;
use crate::keys::public_bytes;
use crate::node::{self, SERVER, child_bytes, text, with_bytes};
use crate::state::{State, now_s};

/// What a client says of itself when it connects to be linked.
pub(crate) struct Registration {
    id: Vec<u8>,
    identity: [u8; 32],
    signed: SignedPrekey,
}

impl Registration {
    pub(crate) fn read(payload: &wa::ClientPayload) -> Option<Self> {
        let data = payload.device_pairing_data.as_option()?;
        Some(Self {
            id: data.e_regid.clone()?,
            identity: data.e_ident.clone()?.try_into().ok()?,
            signed: SignedPrekey {
                id: data.e_skey_id.clone()?,
                value: data.e_skey_val.clone()?,
                signature: data.e_skey_sig.clone()?,
            },
        })
    }
}

/// A device that the phone has accepted and that has not yet signed.
pub(crate) struct PendingPair {
    phone: String,
    number: u16,
}

/// A pairing code that a client asked for, which nobody has typed yet.
pub(crate) struct PendingCode {
    pub(crate) link: u64,
    reference: Vec<u8>,
    wrapped: Vec<u8>,
    /// The phone's key and the client's, once somebody has typed the code.
    exchange: Option<(KeyPair, [u8; 32])>,
}

/// What a QR code says.
pub(crate) struct QrCode {
    reference: String,
    identity: [u8; 32],
    secret: Vec<u8>,
}

impl QrCode {
    pub(crate) fn read(qr: &str) -> Result<Self, PairingError> {
        let body = qr.strip_prefix(NATIVE_CAMERA_DEEP_LINK_PREFIX).unwrap_or(qr);
        let fields: Vec<&str> = body.split(',').collect();
        let [reference, _noise, identity, secret, ..] = fields.as_slice() else {
            return Err(PairingError::Unreadable);
        };
        let bytes = |field: &str| BASE64_STANDARD.decode(field).map_err(|_| PairingError::Unreadable);
        Ok(Self {
            reference: (*reference).to_owned(),
            identity: bytes(identity)?.try_into().map_err(|_| PairingError::Unreadable)?,
            secret: bytes(secret)?,
        })
    }
}

impl State {
    /// The phone accepts the client behind a QR code; gives the number of the new device.
    pub(crate) fn scan(&mut self, phone: &str, qr: &QrCode) -> Result<u16, PairingError> {
        let link = *self.references.get(&qr.reference).ok_or(PairingError::Expired)?;
        let expected = self
            .links
            .get(&link)
            .and_then(|link| link.registration.as_ref())
            .map(|known| known.identity);
        if expected != Some(qr.identity) {
            return Err(PairingError::Unreadable);
        }
        self.accept(phone, link, &qr.secret)
    }

    /// The client behind a QR code is asked for a passkey.
    pub(crate) fn demand_passkey(&mut self, qr: &QrCode) -> Result<(), PairingError> {
        let link = *self.references.get(&qr.reference).ok_or(PairingError::Expired)?;
        let options = r#"{"challenge":"bG9vcGJhY2s","rpId":"web.whatsapp.com"}"#;
        let id = format!("passkey-{}", self.next());
        let demand = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("type", "passkey_prologue_request")
            .attr("id", id)
            .attr("t", now_s())
            .children([with_bytes("passkey_request_options", options.as_bytes().to_vec())])
            .build();
        self.send(link, demand);
        Ok(())
    }

    fn accept(&mut self, phone: &str, link: u64, secret: &[u8]) -> Result<u16, PairingError> {
        let Some(registration) = self.links.get(&link).and_then(|link| link.registration.as_ref()) else {
            return Err(PairingError::Expired);
        };
        let identity = registration.identity;
        self.ensure_phone(phone, "", true);
        let account = self.ensure_account(phone, "");
        let number = account.next_device;
        account.next_device += 1;
        let (device, lid, name) = (account.pn(number), account.lid(number), account.name.clone());
        let lid_migrated = account.lid_migrated;

        let signed = self
            .keys
            .signed_identity(phone, number, &identity, now_s())
            .encode_to_vec();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        mac.update(&signed);
        let container = wa::ADVSignedDeviceIdentityHMAC {
            details: Some(signed),
            hmac: Some(mac.finalize().into_bytes().to_vec()),
            ..Default::default()
        };
        let props = wa::ClientPairingProps {
            is_chat_db_lid_migrated: Some(lid_migrated),
            ..Default::default()
        }
        .encode_to_vec();
        let success = NodeBuilder::new("pair-success")
            .children([
                with_bytes("device-identity", container.encode_to_vec()),
                with_bytes("client-props", props),
                NodeBuilder::new("biz").attr("name", name).build(),
                NodeBuilder::new("platform").attr("name", "android").build(),
                NodeBuilder::new("device").attr("jid", device).attr("lid", lid).build(),
            ])
            .build();
        let id = format!("pair-{}", self.next());
        let answer = NodeBuilder::new("iq")
            .attr("from", SERVER)
            .attr("type", "set")
            .attr("id", id)
            .attr("xmlns", "md")
            .attr("t", now_s())
            .children([success])
            .build();
        if let Some(link) = self.links.get_mut(&link) {
            link.pairing = Some(PendingPair {
                phone: phone.to_owned(),
                number,
            });
        }
        self.send(link, answer);
        Ok(number)
    }

    /// The client has signed in turn, or has refused.
    pub(crate) fn on_pairing_answer(&mut self, link: u64, answer: &Node) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let noise = entry.noise;
        if text(answer, "type") == "error" {
            if let Some(pending) = entry.pairing.take() {
                self.record(Seen::PairingFailed { phone: pending.phone });
            }
            return;
        }
        let Some(signed) = answer.get_optional_child("pair-device-sign") else {
            return;
        };
        let (Some(pending), Some(registration)) = (entry.pairing.take(), entry.registration.take()) else {
            return;
        };
        let record = DeviceRecord {
            noise,
            identity: registration.identity,
            registration: registration.id,
            signed: registration.signed,
            one_time: std::collections::VecDeque::new(),
            adv: Some(child_bytes(signed, "device-identity")),
            light: false,
            link: None,
            active: false,
            available: false,
            waiting: std::collections::VecDeque::new(),
        };
        self.references.retain(|_, known| *known != link);
        self.codes.retain(|_, code| code.link != link);
        self.add_device(&pending.phone, pending.number, record);
        self.record(Seen::Linked {
            device: Jid::pn_device(pending.phone.as_str(), pending.number),
        });
        self.end_stream(link, StreamFault::Code(515));
        self.tell_of_device(&pending.phone, pending.number, "add");
    }

    /// The two steps of a client that is linked with a pairing code.
    pub(crate) fn on_link_code(&mut self, link: u64, query: &Node, step: &Node) {
        let Some(phone) = node::jid(step, "jid").map(|jid| jid.user.to_string()) else {
            return;
        };
        match text(step, "stage").as_str() {
            "companion_hello" => {
                let reference = format!("code-{}", self.next()).into_bytes();
                let wrapped = child_bytes(step, "link_code_pairing_wrapped_companion_ephemeral_pub");
                let answer = NodeBuilder::new("link_code_companion_reg")
                    .attr("stage", "companion_hello")
                    .children([with_bytes("link_code_pairing_ref", reference.clone())])
                    .build();
                self.codes.insert(
                    phone.clone(),
                    PendingCode {
                        link,
                        reference,
                        wrapped,
                        exchange: None,
                    },
                );
                self.send(link, node::result(query, [answer]));
                self.record(Seen::CodeRequested { phone });
            }
            "companion_finish" => {
                self.send(link, node::result(query, []));
                if self.finish_code(link, &phone, step).is_none() {
                    self.record(Seen::PairingFailed { phone });
                }
            }
            _ => {}
        }
    }

    /// What the phone needs to answer a code: the client's wrapped key.
    pub(crate) fn code_challenge(&self, phone: &str) -> Result<Vec<u8>, PairingError> {
        self.codes
            .get(phone)
            .map(|code| code.wrapped.clone())
            .ok_or(PairingError::Expired)
    }

    /// The phone has typed the code: its own key goes to the client, wrapped with the code.
    pub(crate) fn answer_code(
        &mut self,
        phone: &str,
        ours: KeyPair,
        theirs: [u8; 32],
        wrapped: [u8; 80],
    ) -> Result<(), PairingError> {
        let primary = public_bytes(&self.keys.primary(phone));
        let id = format!("n{}", self.next());
        let code = self.codes.get_mut(phone).ok_or(PairingError::Expired)?;
        code.exchange = Some((ours, theirs));
        let step = NodeBuilder::new("link_code_companion_reg")
            .attr("stage", "primary_hello")
            .children([
                with_bytes("link_code_pairing_wrapped_primary_ephemeral_pub", wrapped.to_vec()),
                with_bytes("primary_identity_pub", primary.to_vec()),
                with_bytes("link_code_pairing_ref", code.reference.clone()),
            ])
            .build();
        let link = code.link;
        let hello = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("type", "link_code_companion_reg")
            .attr("id", id)
            .attr("t", now_s())
            .children([step])
            .build();
        self.send(link, hello);
        Ok(())
    }

    /// The client has sent its identity, wrapped with what both keys give: the phone accepts it.
    fn finish_code(&mut self, link: u64, phone: &str, step: &Node) -> Option<()> {
        let code = self.codes.get(phone).filter(|code| code.link == link)?;
        let (ours, theirs) = code.exchange.as_ref()?;
        let shared = ours.private_key.calculate_agreement(&public(theirs)?).ok()?;

        let wrapped = child_bytes(step, "link_code_pairing_wrapped_key_bundle");
        let (salt, rest) = wrapped.split_at_checked(32)?;
        let (iv, sealed) = rest.split_at_checked(12)?;
        let mut key = [0; 32];
        hkdf_sha256_into(
            &shared,
            Some(salt),
            b"link_code_pairing_key_bundle_encryption_key",
            &mut key,
        )
        .ok()?;
        let mut bundle = Vec::new();
        aes_256_gcm_decrypt(&key, iv.try_into().ok()?, b"", sealed, &mut bundle).ok()?;
        let (identity, rest) = bundle.split_at_checked(32)?;
        let (_primary, random) = rest.split_at_checked(32)?;

        let primary = self.keys.primary(phone);
        let identities = primary.private_key.calculate_agreement(&public(identity)?).ok()?;
        let mut secret = [0; 32];
        hkdf_sha256_into(
            &[shared.as_slice(), &identities, random].concat(),
            None,
            b"adv_secret",
            &mut secret,
        )
        .ok()?;
        self.codes.remove(phone);
        self.accept(phone, link, &secret).ok()?;
        Some(())
    }
}

fn public(bytes: &[u8]) -> Option<PublicKey> {
    PublicKey::from_djb_public_key_bytes(bytes).ok()
}
