//! What the log knows in memory: topics, where their records stand, and who still needs them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use tollgate_spool::disk::DiskFile;

use super::format::{FORMAT, Group, SegmentHead, StoredGroup, StoredProgress, StoredTopic};
use crate::{TopicDescription, TopicPartition, TopicSpec};

/// Records that cannot be read although they were confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment file where it was found.
    pub file: PathBuf,
    /// The partition that lost records; `None` where nothing says which.
    pub partition: Option<TopicPartition>,
    /// First offset lost; where no partition is named, first group lost.
    pub from: i64,
    /// The offset, or group, after the last one lost.
    pub to: i64,
}

/// An open segment file. Readers keep it alive after retention has removed its name.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

/// Where a run of records of one partition stands.
#[derive(Debug, Clone)]
pub(super) struct BlockRef {
    pub(super) segment: Arc<SegmentFile>,
    pub(super) position: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) base: i64,
    pub(super) count: u32,
}

impl BlockRef {
    pub(super) fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

#[derive(Debug)]
pub(super) struct PartitionLog {
    /// First offset retained.
    pub(super) low: i64,
    /// The offset after the last.
    pub(super) next: i64,
    pub(super) blocks: VecDeque<BlockRef>,
    /// The head that would say where this partition begins is damaged: its first block does.
    floating: bool,
}

impl PartitionLog {
    fn starting_at(offset: i64) -> Self {
        Self { low: offset, next: offset, blocks: VecDeque::new(), floating: false }
    }

    /// The block that holds this offset, or the first one behind it.
    pub(super) fn block_at(&self, offset: i64) -> Option<&BlockRef> {
        let index = self.blocks.partition_point(|block| block.end() <= offset);
        self.blocks.get(index)
    }
}

#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) config: BTreeMap<String, String>,
    pub(super) max_message_bytes: usize,
    pub(super) partitions: Vec<PartitionLog>,
}

impl TopicState {
    fn new(stored: &StoredTopic) -> Self {
        let most = stored.config.get("max.message.bytes").and_then(|text| text.parse().ok());
        let next = |index| stored.next_offsets.get(index).copied().unwrap_or(0);
        Self {
            config: stored.config.clone(),
            max_message_bytes: most.unwrap_or(tollgate_schema::topics::MAX_MESSAGE_BYTES),
            partitions: (0..stored.partitions.max(1) as usize)
                .map(|index| PartitionLog::starting_at(next(index)))
                .collect(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub(super) topics: BTreeSet<String>,
    pub(super) progress: BTreeMap<TopicPartition, i64>,
}

/// A segment that is not written any more, or the one that is.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<SegmentFile>,
    /// Bytes it takes on disk.
    pub(super) bytes: u64,
    /// The offset after the last record of each partition in it.
    pub(super) ends: HashMap<TopicPartition, i64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) cluster_id: String,
    pub(super) topics: BTreeMap<Arc<str>, TopicState>,
    pub(super) groups: BTreeMap<String, GroupState>,
    /// Groups whose progress is newer than what is on disk.
    pub(super) dirty: BTreeSet<String>,
    pub(super) segments: VecDeque<Segment>,
    /// The last group written.
    pub(super) sequence: u64,
    /// Holders of relay ids.
    pub(super) relays: HashMap<String, u64>,
    pub(super) damage: Vec<Damage>,
    /// Why nothing can be appended at the moment.
    pub(super) trouble: Option<String>,
}

impl State {
    pub(super) fn partition(&self, partition: &TopicPartition) -> Option<&PartitionLog> {
        let index = usize::try_from(partition.partition).ok()?;
        self.topics.get(&partition.topic)?.partitions.get(index)
    }

    fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut PartitionLog> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.partitions.get_mut(index)
    }

    /// Takes the first head that is found as the beginning. `floating` when segments stand
    /// before it whose own head is damaged.
    pub(super) fn begin(&mut self, head: &SegmentHead, floating: bool) {
        self.cluster_id.clone_from(&head.cluster_id);
        for stored in &head.topics {
            let mut topic = TopicState::new(stored);
            for partition in &mut topic.partitions {
                partition.floating = floating;
            }
            self.topics.insert(stored.name.as_str().into(), topic);
        }
        self.apply_groups(&head.groups);
        if !floating {
            self.sequence = head.after;
        }
    }

    /// Compares with a later head: what it knows of and is not here was lost.
    pub(super) fn check_head(&mut self, head: &SegmentHead, file: &SegmentFile) {
        if head.after < self.sequence {
            return;
        }
        self.note_gap(head.after + 1, file);
        self.sequence = head.after;
        self.apply_topics(&head.topics, file);
        self.apply_groups(&head.groups);
    }

    /// Takes in topics that are new, and compares the ends of the others.
    fn apply_topics(&mut self, topics: &[StoredTopic], file: &SegmentFile) {
        for stored in topics {
            if !self.topics.contains_key(stored.name.as_str()) {
                let mut new = stored.clone();
                new.next_offsets.clear();
                self.topics.insert(stored.name.as_str().into(), TopicState::new(&new));
            }
            for (index, next) in stored.next_offsets.iter().enumerate() {
                self.lose_up_to(file, &stored.name, index as i32, *next);
            }
        }
    }

    /// What a group has applied was there, whatever can be read of it.
    pub(super) fn check_progress(&mut self, file: &SegmentFile) {
        let applied: Vec<(TopicPartition, i64)> = self
            .groups
            .values()
            .flat_map(|group| group.progress.iter())
            .map(|(partition, next)| (partition.clone(), *next))
            .collect();
        for (partition, next) in applied {
            self.lose_up_to(file, &partition.topic, partition.partition, next);
        }
    }

    /// Leaves out as many numbers and offsets as groups and records may stand in `bytes` that
    /// cannot be read at the log's end: should they be readable again, nothing has their place.
    pub(super) fn leave_out(&mut self, bytes: u64, file: &SegmentFile) {
        for topic in self.topics.values_mut() {
            for log in &mut topic.partitions {
                log.next = log.next.saturating_add(bytes as i64);
            }
        }
        self.damage.push(Damage {
            file: file.path.clone(),
            partition: None,
            from: self.sequence as i64 + 1,
            to: (self.sequence + bytes) as i64 + 1,
        });
        self.sequence += bytes;
    }

    /// A missing number is a missing group, also when no partition shows a hole: it may have
    /// been the creation of a topic.
    pub(super) fn note_gap(&mut self, sequence: u64, file: &SegmentFile) {
        // Where the first head is damaged nothing says with which number the log begins.
        if self.sequence > 0 && sequence > self.sequence + 1 {
            self.damage.push(Damage {
                file: file.path.clone(),
                partition: None,
                from: self.sequence as i64 + 1,
                to: sequence as i64,
            });
        }
    }

    /// Everything of a partition between what is there and `offset` is missing.
    fn lose_up_to(&mut self, file: &SegmentFile, topic: &str, partition: i32, offset: i64) {
        let Some(log) = self.partition_mut(topic, partition) else { return };
        if log.floating || log.next >= offset {
            return;
        }
        let from = log.next;
        log.next = offset;
        if log.blocks.is_empty() {
            log.low = offset;
        }
        self.damage.push(Damage {
            file: file.path.clone(),
            partition: Some(TopicPartition::new(topic, partition)),
            from,
            to: offset,
        });
    }

    /// Takes in a group that is on disk. `payload_at` is where its payload begins in the file.
    pub(super) fn apply(
        &mut self,
        sequence: u64,
        group: &Group,
        file: &Arc<SegmentFile>,
        payload_at: u64,
    ) {
        self.sequence = sequence;
        self.apply_topics(&group.head.topics, file);
        self.apply_groups(&group.head.groups);
        for name in &group.head.forgotten {
            self.groups.remove(name);
        }
        let mut position = payload_at + group.blocks_at;
        for block in &group.head.blocks {
            let reference = BlockRef {
                segment: Arc::clone(file),
                position,
                len: block.len,
                crc: block.crc,
                base: block.base_offset,
                count: block.count,
            };
            position += u64::from(block.len);
            self.lose_up_to(file, &block.topic, block.partition, block.base_offset);
            let end = reference.end();
            let Some(log) = self.partition_mut(&block.topic, block.partition) else { continue };
            if log.floating {
                log.floating = false;
                log.low = block.base_offset;
            }
            log.next = end;
            log.blocks.push_back(reference);
            // The newest but for a start, where a group may stand in the segment before it.
            let mut segments = self.segments.iter_mut().rev();
            if let Some(segment) = segments.find(|segment| segment.file.number == file.number) {
                segment
                    .ends
                    .insert(TopicPartition::new(block.topic.as_str(), block.partition), end);
            }
        }
    }

    fn apply_groups(&mut self, groups: &[StoredGroup]) {
        for stored in groups {
            let group = self.groups.entry(stored.name.clone()).or_default();
            group.topics.extend(stored.topics.iter().cloned());
            for progress in &stored.progress {
                let partition = TopicPartition::new(progress.topic.as_str(), progress.partition);
                let known = group.progress.entry(partition).or_insert(0);
                *known = progress.next_offset.max(*known);
            }
        }
    }

    /// Everything but the records, for the head of the next segment.
    pub(super) fn snapshot(&self) -> SegmentHead {
        SegmentHead {
            format: FORMAT,
            cluster_id: self.cluster_id.clone(),
            after: self.sequence,
            topics: self.stored_topics(),
            groups: self.groups.keys().filter_map(|name| self.stored_group(name)).collect(),
        }
    }

    /// All topics, with the ends of their partitions.
    pub(super) fn stored_topics(&self) -> Vec<StoredTopic> {
        let topics = self.topics.iter().map(|(name, topic)| StoredTopic {
            name: name.to_string(),
            partitions: topic.partitions.len() as i32,
            config: topic.config.clone(),
            next_offsets: topic.partitions.iter().map(|log| log.next).collect(),
        });
        topics.collect()
    }

    pub(super) fn stored_group(&self, name: &str) -> Option<StoredGroup> {
        let group = self.groups.get(name)?;
        let progress = group.progress.iter().map(|(partition, next)| StoredProgress {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            next_offset: *next,
        });
        Some(StoredGroup {
            name: name.to_owned(),
            topics: group.topics.iter().cloned().collect(),
            progress: progress.collect(),
        })
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The group that still needs a segment, and the partition.
    pub(super) fn needed_by<'a>(
        &'a self,
        segment: &'a Segment,
    ) -> Option<(&'a str, &'a TopicPartition)> {
        self.groups.iter().find_map(|(name, group)| {
            let needed = segment.ends.iter().find(|(partition, end)| {
                group.topics.contains(&*partition.topic)
                    && group.progress.get(*partition).copied().unwrap_or(0) < **end
            });
            needed.map(|(partition, _)| (name.as_str(), partition))
        })
    }

    /// Forgets the oldest segment.
    pub(super) fn drop_oldest(&mut self) {
        let Some(segment) = self.segments.pop_front() else { return };
        for (partition, end) in &segment.ends {
            let Some(log) = self.partition_mut(&partition.topic, partition.partition) else {
                continue;
            };
            while log.blocks.front().is_some_and(|block| block.end() <= *end) {
                log.blocks.pop_front();
            }
            log.low = log.blocks.front().map_or(*end, |block| block.base).max(log.low);
        }
    }

    pub(super) fn describe(&self, name: &str) -> Option<TopicDescription> {
        let topic = self.topics.get(name)?;
        Some(TopicDescription {
            name: name.to_owned(),
            partitions: topic.partitions.len() as i32,
            replication: 1,
            config: topic
                .config
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }
}

impl From<&TopicSpec> for StoredTopic {
    fn from(spec: &TopicSpec) -> Self {
        Self {
            name: spec.name.clone(),
            partitions: spec.partitions,
            config: spec.config.iter().cloned().collect(),
            next_offsets: Vec::new(),
        }
    }
}
