//! As much of the protocol buffers' encoding as CRIU's messages need: varints and byte strings.
//!
//! No meaning here; called by `message`. What is read comes from another program, so every length is checked.

/// A message being written.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The encoded message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// `int32`, `int64`, an enum: a negative value takes ten bytes.
    pub fn number(&mut self, field: u32, value: i64) {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
    }

    /// `bool`; false is what a missing field means.
    pub fn switch(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    /// `string`.
    pub fn text(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// `string`, if there is one.
    pub fn text_if(&mut self, field: u32, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.text(field, value);
        }
    }

    /// A message within the message.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        write(&mut inner);
        self.text(field, &inner.0);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number of any kind.
    Number(u64),
    /// A string or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number as an `int32`.
    pub fn int(self) -> i32 {
        match self {
            Value::Number(number) => number as i32,
            Value::Bytes(_) => 0,
        }
    }

    /// The bytes of a string or a message.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Number(_) => &[],
        }
    }
}

/// The fields of an encoded message, in their order.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next field; None at the end, and an error for what is no message.
    pub fn next(&mut self) -> Option<Result<(u32, Value<'a>), Malformed>> {
        (!self.0.is_empty()).then(|| self.field().ok_or(Malformed))
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u32::from_le_bytes(*self.take(4)?.first_chunk()?).into()),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// Not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("not a protocol buffer")
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        let mut reader = Reader(bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.next() {
            fields.push(field?);
        }
        Ok(fields)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.number(1, -1);
        writer.number(72, 300);
        writer.switch(2, false);
        writer.switch(3, true);
        writer.message(11, |inner| inner.text(1, b"address"));
        let bytes = writer.into_bytes();
        let read = fields(&bytes).unwrap();
        assert_eq!(
            read,
            [
                (1, Value::Number(u64::MAX)),
                (72, Value::Number(300)),
                (3, Value::Number(1)),
                (11, Value::Bytes(b"\x0a\x07address")),
            ]
        );
        assert_eq!(read[0].1.int(), -1);
        assert_eq!(fields(read[3].1.bytes()).unwrap(), [(1, Value::Bytes(b"address"))]);
    }

    #[test]
    fn known_bytes() {
        // The example of the encoding's specification: field 1 is 150.
        assert_eq!(fields(b"\x08\x96\x01"), Ok(vec![(1, Value::Number(150))]));
        assert_eq!(fields(b"\x12\x07testing"), Ok(vec![(2, Value::Bytes(b"testing"))]));
    }

    #[test]
    fn rubbish_is_an_error() {
        for bad in [
            &b"\x08"[..],
            b"\x12\x08testing",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x",
            b"\x0b",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x0d\x01",
        ] {
            assert_eq!(fields(bad), Err(Malformed), "{bad:?}");
        }
    }
}
