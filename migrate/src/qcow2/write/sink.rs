//! Writes of pieces that follow each other, as few large ones.

use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;

const BUFFER_BYTES: usize = 2 << 20;

/// See the module. Nothing may be read of the file before `flush`.
pub(super) struct Sink<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Sink<'a> {
    pub fn new(file: &'a dyn DiskFile) -> Self {
        Self {
            file,
            start: 0,
            buffer: Vec::new(),
        }
    }

    /// The file itself.
    pub fn file(&self) -> &'a dyn DiskFile {
        self.file
    }

    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let follows = self.start + self.buffer.len() as u64 == offset;
        if !follows || self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
            self.start = offset;
        }
        if self.buffer.is_empty() && bytes.len() >= BUFFER_BYTES {
            self.start = offset + bytes.len() as u64;
            return self.file.write_at(offset, bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_at(self.start, &self.buffer)?;
            self.start += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}
