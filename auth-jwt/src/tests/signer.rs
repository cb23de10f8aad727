//! What an issuer signs with.

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

pub(crate) enum Signer {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self::Secret(secret.to_vec())
    }

    /// A private key in DER: `rsa`, `p256`, `p384` or `ed`.
    pub(crate) fn private(kind: &str, der: &[u8]) -> Self {
        let ec = |curve| {
            let pair = EcdsaKeyPair::from_pkcs8(curve, der, &SystemRandom::new());
            Self::Ec(pair.expect("a key"))
        };
        match kind {
            "rsa" => Self::Rsa(RsaKeyPair::from_der(der).expect("a key")),
            "p256" => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "p384" => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ed" => Self::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).expect("a key")),
            _ => panic!("there is no kind {kind}"),
        }
    }

    /// Signs by the algorithm of this name; a key of a curve has only one.
    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut made = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut made).expect("a signature");
                made
            }
            Self::Ec(pair) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}
