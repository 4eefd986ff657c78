//! Values of D-Bus messages and their bytes (D-Bus specification, "Marshaling"), little-endian.
//!
//! Pure. Called by `message` and `properties`.

use anyhow::{Result, bail};

/// A typed value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// Signature of an element, elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    /// An entry of a dictionary.
    Entry(Box<(Value, Value)>),
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// A list of bytes.
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".into(), bytes.iter().map(|&byte| Value::Byte(byte)).collect())
    }

    /// The type in the notation of D-Bus.
    pub fn signature(&self) -> String {
        let plain = match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Text(_) => "s",
            Value::Path(_) => "o",
            Value::Signature(_) => "g",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                return format!("({})", fields.iter().map(Value::signature).collect::<String>());
            }
            Value::Entry(entry) => return format!("{{{}{}}}", entry.0.signature(), entry.1.signature()),
        };
        plain.into()
    }
}

/// Where a value of the type that starts with this character may begin.
fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

/// Bytes of a message from a place that is aligned to 8.
#[derive(Default)]
pub struct Writer {
    /// What has been written.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Fills up with zeroes to a multiple of `to`.
    pub fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// A number of four bytes.
    pub fn u32(&mut self, number: u32) {
        self.number(&number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        // The parser of texts limits nesting, everything else is short.
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// A value without its type.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(n) => self.bytes.push(*n),
            Value::Bool(b) => self.u32(u32::from(*b)),
            Value::I16(n) => self.number(&n.to_le_bytes()),
            Value::U16(n) => self.number(&n.to_le_bytes()),
            Value::I32(n) => self.number(&n.to_le_bytes()),
            Value::U32(n) => self.u32(*n),
            Value::I64(n) => self.number(&n.to_le_bytes()),
            Value::U64(n) => self.number(&n.to_le_bytes()),
            Value::Double(n) => self.number(&n.to_bits().to_le_bytes()),
            Value::Text(text) | Value::Path(text) => self.string(text),
            Value::Signature(text) => self.signature(text),
            Value::Array(element, items) => self.array(element, items),
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Entry(entry) => {
                self.align(8);
                self.value(&entry.0);
                self.value(&entry.1);
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    fn array(&mut self, element: &str, items: &[Value]) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        // Padding before the first element does not count.
        self.align(alignment(element.bytes().next().unwrap_or(b'y')));
        let start = self.bytes.len();
        items.iter().for_each(|item| self.value(item));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads what this program needs of a message: numbers, strings, signatures.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at a place that is aligned to 8.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// How far it has come.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Skips padding.
    pub fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { bail!("a message of D-Bus ends early") };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self, length: usize) -> Result<&'a str> {
        let bytes = self.take(length)?;
        self.take(1)?;
        Ok(std::str::from_utf8(bytes)?)
    }

    /// A string or object path.
    pub fn string(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    /// A signature.
    pub fn signature(&mut self) -> Result<&'a str> {
        let length = self.byte()? as usize;
        self.text(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.value(value);
        writer.bytes
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        assert_eq!(bytes(&Value::Bool(true)), [1, 0, 0, 0]);
        assert_eq!(bytes(&Value::text("foo")), [3, 0, 0, 0, b'f', b'o', b'o', 0]);
        assert_eq!(bytes(&Value::Signature("ai".into())), [2, b'a', b'i', 0]);
        // The length of an array does not count the padding before its first element.
        let array = Value::Array("t".into(), vec![Value::U64(5)]);
        assert_eq!(bytes(&array), [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        let empty = Value::Array("(ss)".into(), vec![]);
        assert_eq!(bytes(&empty), [0; 8]);
        let variant = Value::Variant(Box::new(Value::U16(7)));
        assert_eq!(bytes(&variant), [1, b'q', 0, 0, 7, 0]);
        let both = Value::Struct(vec![Value::Byte(1), Value::I64(-1)]);
        assert_eq!(bytes(&both)[..9], [1, 0, 0, 0, 0, 0, 0, 0, 255]);
    }

    #[test]
    fn signatures() {
        let property = Value::Struct(vec![Value::text("a"), Value::Variant(Box::new(Value::Bool(true)))]);
        assert_eq!(Value::Array(property.signature(), vec![property]).signature(), "a(sv)");
        let entry = Value::Entry(Box::new((Value::text("k"), Value::Double(0.5))));
        assert_eq!(entry.signature(), "{sd}");
    }

    #[test]
    fn reading_stops_at_the_end() {
        let mut reader = Reader::new(&[3, 0, 0, 0, b'f', b'o', b'o', 0, 9]);
        assert_eq!(reader.string().unwrap(), "foo");
        assert_eq!(reader.byte().unwrap(), 9);
        assert!(reader.byte().is_err());
        assert!(Reader::new(&[255, 255, 255, 255, 0]).string().is_err());
        assert!(Reader::new(&[1, 0]).u32().is_err());
    }
}
