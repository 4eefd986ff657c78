//! Messages of D-Bus: a call as bytes, and what is needed of an incoming one (D-Bus specification, "Message Format").
//!
//! Pure. Called by `bus`.

use super::value::{Reader, Value, Writer};
use anyhow::{Context, Result, bail};

/// Longest message that is read, bytes: the answers to our calls are a few hundred.
const MESSAGE_MAX: usize = 16 << 20;
/// The part of a message that tells how long it is.
pub const FIXED: usize = 16;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const VERSION: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Which method of which object.
pub struct Call<'a> {
    /// Name on the bus.
    pub destination: &'a str,
    /// Object.
    pub path: &'a str,
    /// Interface.
    pub interface: &'a str,
    /// Method.
    pub member: &'a str,
    /// Arguments.
    pub arguments: &'a [Value],
}

impl Call<'_> {
    /// The bytes of the call; `serial` is what the answer names.
    pub fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        self.arguments.iter().for_each(|argument| body.value(argument));
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let mut fields = vec![
            (PATH, Value::Path(self.path.into())),
            (INTERFACE, Value::text(self.interface)),
            (MEMBER, Value::text(self.member)),
            (DESTINATION, Value::text(self.destination)),
        ];
        if !signature.is_empty() {
            fields.push((SIGNATURE, Value::Signature(signature)));
        }
        let fields = fields
            .into_iter()
            .map(|(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]))
            .collect();
        let mut message = Writer { bytes: vec![b'l', CALL, 0, VERSION] };
        message.u32(body.bytes.len() as u32);
        message.u32(serial);
        message.value(&Value::Array("(yv)".into(), fields));
        message.align(8);
        message.bytes.extend_from_slice(&body.bytes);
        message.bytes
    }
}

/// What has arrived.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// The answer to the call of this serial.
    Return(u32, Vec<u8>),
    /// The refusal of the call of this serial: name, words.
    Error(u32, String, String),
    /// A signal of this name.
    Signal(String, Vec<u8>),
    /// Something else, which is nothing to us.
    Other,
}

/// How long the message is of which these are the first [`FIXED`] bytes.
pub fn length(head: &[u8]) -> Result<usize> {
    if head[0] != b'l' || head[3] != VERSION {
        bail!("unknown form of a D-Bus message");
    }
    let mut reader = Reader::new(&head[4..FIXED]);
    let (body, _, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
    let length = FIXED.saturating_add(fields).next_multiple_of(8).saturating_add(body);
    if length > MESSAGE_MAX {
        bail!("a message of D-Bus has {length} bytes");
    }
    Ok(length)
}

/// Reads one whole message.
pub fn parse(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader::new(bytes);
    let (_, kind, _, _) = (reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?);
    let body_length = reader.u32()? as usize;
    reader.u32()?;
    let end = reader.u32()? as usize + FIXED;
    let (mut member, mut error, mut reply, mut signature) = ("", "", 0, "");
    while reader.position() < end {
        reader.align(8);
        let code = reader.byte()?;
        match reader.signature()? {
            "u" if code == REPLY_SERIAL => reply = reader.u32()?,
            "s" | "o" => match (code, reader.string()?) {
                (MEMBER, text) => member = text,
                (ERROR_NAME, text) => error = text,
                _ => {}
            },
            // The only field of this type.
            "g" => signature = reader.signature()?,
            "u" => drop(reader.u32()?),
            other => bail!("a header field of D-Bus has the type {other:?}"),
        }
    }
    let start = bytes.len().checked_sub(body_length).context("a message of D-Bus ends early")?;
    let body = bytes[start..].to_vec();
    Ok(match kind {
        RETURN => Message::Return(reply, body),
        ERROR => {
            let words =
                if signature.starts_with('s') { Reader::new(&body).string()?.into() } else { String::new() };
            Message::Error(reply, error.into(), words)
        }
        SIGNAL => Message::Signal(member.into(), body),
        _ => Message::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Vec<u8> {
        let arguments = [Value::text("x.scope"), Value::U32(7)];
        Call { destination: "a.b", path: "/a", interface: "a.b.C", member: "Do", arguments: &arguments }
            .bytes(3)
    }

    #[test]
    fn a_call_has_its_length_in_its_head() {
        let bytes = call();
        assert_eq!(length(&bytes[..FIXED]).unwrap(), bytes.len());
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!(parse(&bytes).unwrap(), Message::Other);
        // The body is the last part and begins at a multiple of eight.
        let body = 4 + 8 + 4;
        assert_eq!((bytes.len() - body) % 8, 0);
    }

    #[test]
    fn answers_and_signals() {
        let message = |kind: u8, fields: Vec<(u8, Value)>, body: &[Value]| {
            let mut writer = Writer::default();
            body.iter().for_each(|value| writer.value(value));
            let mut message = Writer { bytes: vec![b'l', kind, 0, 1] };
            message.u32(writer.bytes.len() as u32);
            message.u32(9);
            let fields = fields
                .into_iter()
                .map(|(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]));
            message.value(&Value::Array("(yv)".into(), fields.collect()));
            message.align(8);
            message.bytes.extend(writer.bytes);
            message.bytes
        };
        let bytes = message(RETURN, vec![(REPLY_SERIAL, Value::U32(3))], &[Value::Path("/j".into())]);
        let Message::Return(3, body) = parse(&bytes).unwrap() else { panic!() };
        assert_eq!(Reader::new(&body).string().unwrap(), "/j");
        let fields = vec![
            (REPLY_SERIAL, Value::U32(3)),
            (ERROR_NAME, Value::text("a.Failed")),
            (SIGNATURE, Value::Signature("s".into())),
        ];
        let bytes = message(ERROR, fields, &[Value::text("no")]);
        assert_eq!(parse(&bytes).unwrap(), Message::Error(3, "a.Failed".into(), "no".into()));
        let bytes = message(SIGNAL, vec![(MEMBER, Value::text("JobRemoved"))], &[]);
        assert_eq!(parse(&bytes).unwrap(), Message::Signal("JobRemoved".into(), vec![]));
        // Whatever a peer sends, reading it ends.
        for end in 0..bytes.len() {
            let _ = parse(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _ = parse(&broken);
            if at < FIXED {
                let _ = length(&broken[..FIXED]);
            }
        }
    }
}
