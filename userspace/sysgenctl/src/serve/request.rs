// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is asked for, and what is refused before anything is done.

use std::ops::RangeInclusive;
use std::time::Duration;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::refusal::Code;
use super::refusal::Refusal;
use super::token::Token;

/// How much a body may have: the most entropy there can be, and room for the rest.
pub const MOST: usize = 128 << 10;

/// How many bytes of entropy there have to be: fewer can be guessed, and more are a mistake.
const ENTROPY: RangeInclusive<usize> = 16..=64 << 10;
/// Until when anything can take.
const DAY: f64 = 86_400.0;
/// 2020-01-01 and 2100-01-01, in seconds since 1970: no host is before this was written, and what is beyond
/// the other one is a number in another unit.
const TIMES: RangeInclusive<u64> = 1_577_836_800..=4_102_444_800;
/// How many control groups can be named at once.
const GROUPS: usize = 256;

/// Why a deadline cannot be met.
const DEADLINE: &str = "the deadline is a number of seconds, more than 0 and a day (86400) at most";

/// `POST /v1/prepare`
#[derive(Debug)]
pub struct Prepare {
    /// How long it may take.
    pub deadline: Duration,
    /// Units, and paths of control groups, that are to stand still.
    pub freeze: Vec<String>,
}

/// `POST /v1/resumed`
#[derive(Debug)]
pub struct Resumed {
    /// What `prepare` answered.
    pub token: Token,
    /// What no other clone gets.
    pub entropy: Option<Vec<u8>>,
    /// What time it is.
    pub time: Option<Duration>,
    /// The least generation.
    pub least: u32,
    /// What the machine is.
    pub expect: Expect,
    /// How long it may take.
    pub deadline: Duration,
}

/// `POST /v1/cancel`
#[derive(Debug)]
pub struct Cancel {
    /// What `prepare` answered.
    pub token: Token,
}

/// What the machine is after the resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// A clone, of which there may be others.
    Clone,
    /// The one that was saved.
    Same,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrepareBody {
    deadline: f64,
    #[serde(default)]
    freeze: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumedBody {
    token: String,
    entropy: Option<String>,
    time: Option<String>,
    #[serde(default)]
    least_generation: u32,
    expect: Expect,
    deadline: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelBody {
    token: String,
}

impl Prepare {
    /// By the body.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let body: PrepareBody = parse(body)?;
        if body.freeze.len() > GROUPS {
            let message = format!("there are more than {GROUPS} names in freeze");
            return Err(Refusal::new(Code::InvalidField, message));
        }
        Ok(Self {
            deadline: deadline(body.deadline)?,
            freeze: body.freeze,
        })
    }
}

impl Resumed {
    /// By the body.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let body: ResumedBody = parse(body)?;
        let resumed = Self {
            token: token(&body.token)?,
            entropy: body.entropy.as_deref().map(entropy).transpose()?,
            time: body.time.as_deref().map(time).transpose()?,
            least: body.least_generation,
            expect: body.expect,
            deadline: deadline(body.deadline)?,
        };
        if resumed.expect == Expect::Clone && resumed.entropy.is_none() {
            return Err(Refusal::new(
                Code::EntropyMissing,
                "a clone needs entropy of its own: without, nobody knows that it draws what no other does",
            ));
        }
        Ok(resumed)
    }
}

impl Cancel {
    /// By the body.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let body: CancelBody = parse(body)?;
        Ok(Self {
            token: token(&body.token)?,
        })
    }
}

/// Any of them.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let message = error.to_string();
        let code = if !error.is_data() {
            Code::MalformedJson
        } else if message.starts_with("unknown field") {
            Code::UnknownField
        } else if message.starts_with("missing field") {
            Code::MissingField
        } else {
            Code::InvalidField
        };
        Refusal::new(code, message)
    })
}

fn deadline(seconds: f64) -> Result<Duration, Refusal> {
    let refusal = || Refusal::new(Code::DeadlineRange, DEADLINE);
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| refusal())?;
    if duration.is_zero() || seconds > DAY {
        return Err(refusal());
    }
    Ok(duration)
}

fn token(text: &str) -> Result<Token, Refusal> {
    text.parse().map_err(Refusal::of(Code::MalformedToken))
}

fn entropy(text: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| {
        Refusal::new(
            Code::InvalidField,
            format!("the entropy is no base64: {error}"),
        )
    })?;
    if ENTROPY.contains(&bytes.len()) {
        return Ok(bytes);
    }
    let (least, most) = ENTROPY.into_inner();
    let length = bytes.len();
    Err(Refusal::new(
        Code::EntropySize,
        format!("there have to be {least} to {most} bytes of entropy, and not {length}"),
    ))
}

/// The time since 1970.
fn time(text: &str) -> Result<Duration, Refusal> {
    let time = humantime::parse_rfc3339(text).map_err(|error| {
        let message = format!("the time is none like 2026-11-27T12:00:00Z: {error}");
        Refusal::new(Code::InvalidField, message)
    })?;
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .filter(|time| TIMES.contains(&time.as_secs()))
        .ok_or_else(|| {
            Refusal::new(
                Code::TimeRange,
                "the time is before 2020, or after 2099: no clock is set to that",
            )
        })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::serve::token::Point;

    fn resumed(key: &str, value: Value) -> Result<Resumed, Code> {
        let mut body = json!({
            "token": Token::numbered(Point::default(), 1),
            "entropy": BASE64_STANDARD.encode([7; 32]),
            "expect": "clone",
            "deadline": 30,
        });
        body[key] = value;
        Resumed::parse(body.to_string().as_bytes()).map_err(|refusal| refusal.code)
    }

    fn entropy_of(length: usize) -> Value {
        BASE64_STANDARD.encode(vec![7; length]).into()
    }

    #[test]
    fn all_of_it_is_understood() {
        let resumed = resumed("time", "2026-11-27T12:00:00.5Z".into()).expect("it is right");
        assert_eq!(resumed.entropy, Some(vec![7; 32]));
        assert_eq!(resumed.time, Some(Duration::from_millis(1_795_780_800_500)));
        assert_eq!(resumed.deadline, Duration::from_secs(30));
        assert_eq!((resumed.least, resumed.expect), (0, Expect::Clone));
        let prepare = Prepare::parse(br#"{"deadline": 0.5}"#).expect("it is right");
        assert_eq!(prepare.deadline, Duration::from_millis(500));
        assert!(prepare.freeze.is_empty());
    }

    #[test]
    fn what_is_wrong_has_a_word() {
        let code = |key, value| resumed(key, value).expect_err("it is wrong");
        assert_eq!(code("entropy", entropy_of(15)), Code::EntropySize);
        assert_eq!(
            code("entropy", entropy_of((64 << 10) + 1)),
            Code::EntropySize
        );
        assert_eq!(code("entropy", "".into()), Code::EntropySize);
        assert_eq!(code("entropy", "?".into()), Code::InvalidField);
        assert_eq!(code("entropy", Value::Null), Code::EntropyMissing);
        assert_eq!(code("time", "1970-01-01T00:00:00Z".into()), Code::TimeRange);
        assert_eq!(code("time", "2100-01-02T00:00:00Z".into()), Code::TimeRange);
        assert_eq!(code("time", "now".into()), Code::InvalidField);
        assert_eq!(code("deadline", 0.into()), Code::DeadlineRange);
        assert_eq!(code("deadline", (-1).into()), Code::DeadlineRange);
        assert_eq!(code("deadline", 31_536_000.into()), Code::DeadlineRange);
        assert_eq!(code("deadline", 1e300.into()), Code::DeadlineRange);
        assert_eq!(code("deadline", "1s".into()), Code::InvalidField);
        assert_eq!(code("token", "t".into()), Code::MalformedToken);
        assert_eq!(
            code("least_generation", 4_294_967_296_u64.into()),
            Code::InvalidField
        );
        assert_eq!(code("expect", "nothing".into()), Code::InvalidField);
        assert_eq!(code("more", 1.into()), Code::UnknownField);
        assert!(resumed("entropy", entropy_of(16)).is_ok());
        assert!(resumed("entropy", entropy_of(64 << 10)).is_ok());
        assert!(resumed("deadline", 86_400.into()).is_ok());
    }

    #[test]
    fn the_same_machine_needs_no_entropy() {
        let body = json!({ "token": Token::numbered(Point::default(), 1), "expect": "same", "deadline": 1 });
        assert!(Resumed::parse(body.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let code = |body: &[u8]| Cancel::parse(body).expect_err("it is wrong").code;
        for body in [
            &b""[..],
            b"{",
            b"\xff",
            b"{\"token\": \"\"} {}",
            b"{\"token\": \"\xff\"}",
        ] {
            assert_eq!(code(body), Code::MalformedJson, "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(
            code(deep.as_bytes()),
            Code::MalformedJson | Code::InvalidField
        ));
        assert_eq!(code(b"{}"), Code::MissingField);
        assert_eq!(code(b"7"), Code::InvalidField);
        assert_eq!(code(br#"{"token": "a", "token": "b"}"#), Code::InvalidField);
        let names = vec!["a.service"; GROUPS + 1];
        let body = json!({ "deadline": 1, "freeze": names }).to_string();
        let refusal = Prepare::parse(body.as_bytes()).expect_err("they are too many");
        assert_eq!(refusal.code, Code::InvalidField);
    }
}
