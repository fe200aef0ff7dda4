//! The wire format of Protocol Buffers, as far as traces need it: a writer without copies of
//! messages, and a reader of small answers.
//!
//! Not here: which messages have which fields (`span`, `request`, `answer`).

/// The wire types of fields.
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

/// Writes the fields of one message to the end of a buffer.
pub(super) struct MessageWriter<'a>(&'a mut Vec<u8>);

impl<'a> MessageWriter<'a> {
    pub(super) fn new(buffer: &'a mut Vec<u8>) -> Self {
        MessageWriter(buffer)
    }

    /// Writes a field of bytes, of text, or of a message that is encoded already.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn int(&mut self, field: u32, number: u64) {
        self.key(field, VARINT);
        self.varint(number);
    }

    pub(super) fn fixed_32(&mut self, field: u32, number: u32) {
        self.key(field, FIXED_32);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn fixed_64(&mut self, field: u32, number: u64) {
        self.key(field, FIXED_64);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Writes a field that is a message.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut MessageWriter<'_>)) {
        self.key(field, DELIMITED);
        // Most messages are short: their length takes one byte.
        let length_at = self.0.len();
        self.0.push(0);
        write(&mut MessageWriter(self.0));
        let length = self.0.len() - length_at - 1;
        if let Ok(short) = u8::try_from(length)
            && short < 0x80
        {
            self.0[length_at] = short;
            return;
        }
        let mut encoded = Vec::with_capacity(5);
        MessageWriter(&mut encoded).varint(length as u64);
        self.0.splice(length_at..=length_at, encoded);
    }

    /// Appends fields that are encoded already.
    pub(super) fn fields(&mut self, encoded: &[u8]) {
        self.0.extend_from_slice(encoded);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

/// A value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the fields of a message one after the other, up to the first that is malformed.
pub(super) struct MessageReader<'a>(pub(super) &'a [u8]);

impl MessageReader<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

impl<'a> Iterator for MessageReader<'a> {
    type Item = (u64, FieldValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let length = match (key & 7) as u32 {
            VARINT => return Some((key >> 3, FieldValue::Number(self.varint()?))),
            DELIMITED => usize::try_from(self.varint()?).ok()?,
            FIXED_32 => 4,
            FIXED_64 => 8,
            _ => return None,
        };
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((key >> 3, FieldValue::Bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<(u64, FieldValue<'_>)> {
        MessageReader(bytes).collect()
    }

    #[test]
    fn fields_are_read_as_written() {
        let mut bytes = Vec::new();
        let mut message = MessageWriter::new(&mut bytes);
        let long = vec![7; 70_000];
        message.bytes(1, b"a");
        message.int(2, 300);
        message.message(3, |inner| inner.int(1, u64::MAX));
        message.message(4, |inner| inner.bytes(15, &long));
        message.fixed_64(16, 0x0102);
        message.fixed_32(17, 1);
        let fields = read(&bytes);
        assert_eq!(fields[..2], [(1, FieldValue::Bytes(b"a")), (2, FieldValue::Number(300))]);
        let FieldValue::Bytes(inner) = fields[2].1 else { panic!("{fields:?}") };
        assert_eq!(read(inner), [(1, FieldValue::Number(u64::MAX))]);
        let FieldValue::Bytes(inner) = fields[3].1 else { panic!("{fields:?}") };
        assert_eq!(read(inner), [(15, FieldValue::Bytes(&long))]);
        assert_eq!(fields[4], (16, FieldValue::Bytes(&[2, 1, 0, 0, 0, 0, 0, 0])));
        assert_eq!(fields[5], (17, FieldValue::Bytes(&[1, 0, 0, 0])));
        assert_eq!(fields.len(), 6);
    }

    #[test]
    fn a_malformed_message_ends_the_reader() {
        for malformed in [&[0x0a, 5, 1][..], &[0x80; 11], &[0x0b], &[0x08], &[0x0d, 1, 2]] {
            assert_eq!(read(malformed), [], "{malformed:?}");
        }
    }
}
