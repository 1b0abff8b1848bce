//! Writes of pieces that follow each other, as few large ones; none of what the file holds already.

use super::leftover::Leftover;
use stillpoint_store::Result;
use stillpoint_store::disk::DiskFile;

const BUFFER_BYTES: usize = 2 << 20;

/// See the module. Nothing may be read of the file before `flush`.
pub(super) struct Sink<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    buffer: Vec<u8>,
    /// While there is one, nothing was written.
    leftover: Option<Leftover<'a>>,
    kept: u64,
}

impl<'a> Sink<'a> {
    pub fn new(file: &'a dyn DiskFile, leftover: Option<Leftover<'a>>) -> Self {
        Self {
            file,
            start: 0,
            buffer: Vec::new(),
            leftover,
            kept: 0,
        }
    }

    /// What all that was put so far is equal to.
    pub fn leftover(&self) -> Option<&Leftover<'a>> {
        self.leftover.as_ref()
    }

    /// Bytes that were put and were there.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Nothing stays of the leftover but what was put and was there.
    pub fn cut(&mut self) -> Result<()> {
        match self.leftover.take() {
            Some(leftover) => {
                self.kept = leftover.kept();
                leftover.cut()
            }
            None => Ok(()),
        }
    }

    /// The file itself.
    pub fn file(&self) -> &'a dyn DiskFile {
        self.file
    }

    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(leftover) = &mut self.leftover
            && leftover.keep(offset, bytes)?
        {
            return Ok(());
        }
        self.cut()?;
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
