// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `prepare` answers, and `resumed` wants to have: which snapshot is meant.
//!
//! It is no secret: whoever may call at all may read it. It keeps those apart who mean different
//! snapshots.

use std::fmt;
use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use sysgenid::Fresh;

use super::refusal::Code;
use super::refusal::Refusal;

/// What tells tokens of this form from others.
const FORM: &str = "s1";

/// Which moment of the driver's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Another one each time that the driver is loaded.
    pub instance: u64,
    /// The epoch.
    pub epoch: u64,
    /// The generation.
    pub generation: u32,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    /// When `prepare` was called.
    pub point: Point,
    /// What no other machine has drawn: clones are at the same point.
    nonce: String,
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    ///
    /// There are no random numbers.
    pub fn new(point: Point) -> Result<Self, Refusal> {
        let mut bytes = [0; 16];
        Fresh::without_device()
            .fill(&mut bytes)
            .map_err(Refusal::of(Code::DeviceFailed))?;
        let number = u128::from_ne_bytes(bytes);
        Ok(Self {
            point,
            nonce: format!("{number:032x}"),
        })
    }

    #[cfg(test)]
    pub fn numbered(point: Point, number: u32) -> Self {
        Self {
            point,
            nonce: format!("{number:032x}"),
        }
    }
}

impl Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point {
            instance,
            epoch,
            generation,
        } = self.point;
        write!(f, "{FORM}-{instance}-{epoch}-{generation}-{}", self.nonce)
    }
}

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "it is no token of sysgenctl serve";
        let parts: Vec<_> = text.split('-').collect();
        let [FORM, instance, epoch, generation, nonce] = parts[..] else {
            return Err(wrong);
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if nonce.len() != 32 || !nonce.bytes().all(is_hex) {
            return Err(wrong);
        }
        let token = Self {
            point: Point {
                instance: instance.parse().map_err(|_| wrong)?,
                epoch: epoch.parse().map_err(|_| wrong)?,
                generation: generation.parse().map_err(|_| wrong)?,
            },
            nonce: nonce.to_owned(),
        };
        // There is one way to write it.
        if token.to_string() == text {
            Ok(token)
        } else {
            Err(wrong)
        }
    }
}

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_it_was_written_as() {
        let point = Point {
            instance: 1,
            epoch: u64::MAX,
            generation: 3,
        };
        let token = Token::numbered(point, 255);
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(
            token
                .to_string()
                .starts_with("s1-1-18446744073709551615-3-000")
        );
        assert_ne!(token, Token::numbered(point, 254));
    }

    #[test]
    fn others_are_none() {
        let nonce = "0".repeat(32);
        for text in [
            "",
            "s1",
            "s1-1-2-3-",
            &format!("s2-1-2-3-{nonce}"),
            &format!("s1-01-2-3-{nonce}"),
            &format!("s1-+1-2-3-{nonce}"),
            &format!("s1-1-2-4294967296-{nonce}"),
            &format!("s1-1-2-3-{nonce}0"),
            &format!("s1-1-2-3-{nonce}-"),
            &format!("s1-1-2-3-{}", "A".repeat(32)),
            &format!("s1-1-2-3-{nonce}\n"),
        ] {
            assert!(text.parse::<Token>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_two_are_alike() {
        let new = || Token::new(Point::default()).expect("there are random numbers");
        assert_ne!(new(), new());
    }
}
