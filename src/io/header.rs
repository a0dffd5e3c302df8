//! The header of a safetensors file: a length, JSON that says where each tensor lies, then the
//! tensors without gaps.
//!
//! The crate `safetensors` checks as much, but seldom says which tensor is wrong, and lets the last
//! of two that have one name win.

use std::collections::BTreeMap;
use std::fmt;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::element::elements;

/// Bytes of the length.
const LENGTH: usize = 8;

/// What the JSON says.
#[derive(Default)]
struct Listing {
    tensors: BTreeMap<String, TensorInfo>,
    text: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Listing;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listing, A::Error> {
        let mut listing = Listing::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                listing.text = map.next_value()?;
                continue;
            }
            let info = map.next_value().map_err(|e| A::Error::custom(format!("tensor \"{name}\": {e}")))?;
            if listing.tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor \"{name}\" is there twice")));
            }
            listing.tensors.insert(name, info);
        }
        Ok(listing)
    }
}

/// A tensor as the file has it: its name, shape and type, and its bytes.
pub(super) type Stored<'a> = (String, TensorInfo, &'a [u8]);

/// The tensors of a file in the order of their bytes, and its text; or what is wrong with it.
/// Nothing is allocated for what it only promises.
pub(super) fn read(file: &[u8]) -> Result<(Vec<Stored<'_>>, BTreeMap<String, String>), String> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(format!("is no complete safetensors file: {} bytes", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some((json, data)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return Err(format!("is no complete safetensors file: its header should have {length} bytes, {} follow", rest.len()));
    };
    let listing: Listing = serde_json::from_slice(json).map_err(|e| format!("is no safetensors file: its header is damaged: {e}"))?;
    let mut tensors: Vec<(String, TensorInfo)> = listing.tensors.into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let (mut place, mut stored) = (0, Vec::new());
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let wrong = |what: String| Err(format!("tensor \"{name}\" {what}"));
        let size = elements(&info.shape).and_then(|n| n.checked_mul(info.dtype.bitsize()));
        let Some(bytes) = data.get(start..end) else {
            let found = data.len();
            return Err(format!(
                "is no complete safetensors file: tensor \"{name}\" should lie at bytes {start} to {end}, there are {found}"
            ));
        };
        if size != bytes.len().checked_mul(8) {
            return wrong(format!("of type {} and shape {:?} does not have {} bytes", info.dtype, info.shape, bytes.len()));
        }
        if start != place {
            let what = if start < place { "overlaps the one before" } else { "follows a gap" };
            return wrong(format!("{what}: it starts at byte {start}, expected {place}"));
        }
        place = end;
        stored.push((name, info, bytes));
    }
    if place != data.len() {
        return Err(format!("is no complete safetensors file: its tensors end at byte {place}, the file has {}", data.len()));
    }
    Ok((stored, listing.text))
}
