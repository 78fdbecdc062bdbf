//! The keys of the server, its accounts and its devices, all drawn from one seed.

use hmac::{Hmac, KeyInit, Mac};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use sha2::Sha256;
use whatsapp_rust::Jid;
use whatsapp_rust::buffa::{Message, MessageField};
use whatsapp_rust::wacore::libsignal::protocol::{KeyPair, PrivateKey};
use whatsapp_rust::wacore::store::device::{CachedNoiseCert, CachedServerCertChain, Device};
use whatsapp_rust::waproto::whatsapp::{self as wa, cert_chain};

/// Certificates of the server are valid from 2000 to 2100, whatever time a test sets its clock to.
const NOT_BEFORE: u64 = 946_684_800;
const NOT_AFTER: u64 = 4_102_444_800;

/// First two bytes of what a phone signs of a linked device, and of what the device itself signs.
const ACCOUNT_SIGNATURE: &[u8] = &[6, 0];
const DEVICE_SIGNATURE: &[u8] = &[6, 1];

/// Draws keys by name: the same seed and name give the same key in every process.
#[derive(Clone)]
pub(crate) struct Keys {
    seed: u64,
}

impl Keys {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(crate) fn rng(&self, purpose: &str, who: &str) -> ChaCha8Rng {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.seed.to_le_bytes()).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(who.as_bytes());
        ChaCha8Rng::from_seed(mac.finalize().into_bytes().into())
    }

    fn pair(&self, purpose: &str, who: &str) -> KeyPair {
        KeyPair::generate(&mut self.rng(purpose, who))
    }

    /// The server's Noise identity.
    pub(crate) fn server(&self) -> KeyPair {
        self.pair("server noise", "")
    }

    /// The certificate chain that the server shows in its handshake. Its signatures are empty: nobody but WhatsApp can
    /// make true ones.
    pub(crate) fn cert_chain(&self) -> Vec<u8> {
        let cert = |serial, issuer_serial, key: Vec<u8>| {
            let details = cert_chain::noise_certificate::Details {
                serial: Some(serial),
                issuer_serial: Some(issuer_serial),
                key: Some(key),
                not_before: Some(NOT_BEFORE),
                not_after: Some(NOT_AFTER),
            };
            MessageField::some(cert_chain::NoiseCertificate {
                details: Some(details.encode_to_vec()),
                signature: Some(vec![0; 64]),
            })
        };
        wa::CertChain {
            intermediate: cert(1, 0, vec![0xcc; 32]),
            leaf: cert(2, 1, public_bytes(&self.server()).to_vec()),
        }
        .encode_to_vec()
    }

    /// The chain as a client keeps it that has seen the server before.
    pub(crate) fn cached_cert_chain(&self) -> CachedServerCertChain {
        let cert = |key| CachedNoiseCert {
            key,
            not_before: NOT_BEFORE as i64,
            not_after: NOT_AFTER as i64,
        };
        CachedServerCertChain {
            intermediate: cert([0xcc; 32]),
            leaf: cert(public_bytes(&self.server())),
        }
    }

    /// The identity of an account's phone, with which it signs its linked devices.
    pub(crate) fn primary(&self, phone: &str) -> KeyPair {
        self.pair("device identity", &device_name(phone, 0))
    }

    /// The number that stands for an account in all that its phone signs; it never changes.
    pub(crate) fn raw_id(&self, phone: &str) -> u32 {
        self.rng("raw id", phone).next_u32() >> 1
    }

    /// The LID of an account: fifteen digits.
    pub(crate) fn lid(&self, phone: &str) -> String {
        (100_000_000_000_000 + self.rng("lid", phone).next_u64() % 800_000_000_000_000).to_string()
    }

    /// What a device of an account keeps: all its keys, its names, and the server's certificates, as if it had been
    /// linked and had logged in before.
    pub(crate) fn device(&self, phone: &str, number: u16) -> Device {
        let who = device_name(phone, number);
        let mut device = Device::new();
        device.pn = Some(Jid::pn_device(phone, number));
        device.lid = Some(Jid::lid_device(self.lid(phone), number));
        device.registration_id = (self.rng("registration", &who).next_u32() >> 1).max(1);
        device.noise_key = self.pair("device noise", &who);
        device.identity_key = self.pair("device identity", &who);
        device.signed_pre_key = self.pair("signed prekey", &who);
        device.signed_pre_key_id = 1;
        device.signed_pre_key_signature = sign(
            &device.identity_key.private_key,
            &device.signed_pre_key.public_key.serialize(),
            &mut self.rng("signed prekey signature", &who),
        );
        self.rng("adv secret", &who).fill_bytes(&mut device.adv_secret_key);
        device.server_has_prekeys = true;
        device.server_cert_chain = Some(self.cached_cert_chain());
        if number > 0 {
            let signed = self.countersigned(phone, number, &device.identity_key);
            device.account = Some(std::sync::Arc::new(signed));
        }
        device
    }

    /// What the phone of `phone` signs for the linked device `number` with the identity `companion`.
    pub(crate) fn signed_identity(
        &self,
        phone: &str,
        number: u16,
        companion: &[u8; 32],
        now_s: i64,
    ) -> wa::ADVSignedDeviceIdentity {
        let primary = self.primary(phone);
        let details = wa::ADVDeviceIdentity {
            raw_id: Some(self.raw_id(phone)),
            timestamp: Some(now_s.max(0) as u64),
            key_index: Some(u32::from(number)),
            ..Default::default()
        }
        .encode_to_vec();
        let signature = sign(
            &primary.private_key,
            &[ACCOUNT_SIGNATURE, &details, companion].concat(),
            &mut self.rng("account signature", &device_name(phone, number)),
        );
        wa::ADVSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(public_bytes(&primary).to_vec()),
            account_signature: Some(signature.to_vec()),
            ..Default::default()
        }
    }

    fn countersigned(&self, phone: &str, number: u16, companion: &KeyPair) -> wa::ADVSignedDeviceIdentity {
        let identity = public_bytes(companion);
        let mut signed = self.signed_identity(phone, number, &identity, 1_700_000_000);
        let details = signed.details.clone().unwrap_or_default();
        let primary = public_bytes(&self.primary(phone));
        let signature = sign(
            &companion.private_key,
            &[DEVICE_SIGNATURE, &details, &identity, &primary].concat(),
            &mut self.rng("device signature", &device_name(phone, number)),
        );
        signed.device_signature = Some(signature.to_vec());
        signed
    }

    /// The list of valid linked devices that goes with a device list; without it clients ignore all but the phone.
    pub(crate) fn key_index_list(&self, phone: &str, now_s: i64, numbers: &[u16]) -> Vec<u8> {
        let details = wa::ADVKeyIndexList {
            raw_id: Some(self.raw_id(phone)),
            timestamp: Some(now_s.max(0) as u64),
            current_index: Some(numbers.iter().copied().map(u32::from).max().unwrap_or(0)),
            valid_indexes: std::iter::once(0)
                .chain(numbers.iter().copied().map(u32::from))
                .collect(),
            ..Default::default()
        }
        .encode_to_vec();
        let signature = sign(
            &self.primary(phone).private_key,
            &[&[6, 2], details.as_slice()].concat(),
            &mut self.rng("key index signature", phone),
        );
        wa::ADVSignedKeyIndexList {
            details: Some(details),
            account_signature: Some(signature.to_vec()),
            ..Default::default()
        }
        .encode_to_vec()
    }
}

fn device_name(phone: &str, number: u16) -> String {
    format!("{phone}:{number}")
}

/// The 32 bytes of a public key, without its type byte.
pub(crate) fn public_bytes(pair: &KeyPair) -> [u8; 32] {
    pair.public_key
        .public_key_bytes()
        .try_into()
        .expect("a Curve25519 key has 32 bytes")
}

fn sign(key: &PrivateKey, message: &[u8], rng: &mut ChaCha8Rng) -> [u8; 64] {
    let signature = key
        .calculate_signature(message, rng)
        .expect("a Curve25519 key signs any message");
    signature.as_ref().try_into().expect("a signature has 64 bytes")
}

impl Keys {
    /// The token that one account gives another one as a sign of trust.
    pub(crate) fn token(&self, giver: &str, receiver: &str) -> Vec<u8> {
        let mut token = vec![0; 16];
        self.rng("privacy token", &format!("{giver} {receiver}"))
            .fill_bytes(&mut token);
        token
    }
}
