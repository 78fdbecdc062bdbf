//! Small readers of stanzas.

use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::node::NodeContent;
use whatsapp_rust::wacore_binary::{Jid, Node};

/// The server's own address.
pub(crate) const SERVER: &str = "s.whatsapp.net";

/// An attribute as text; empty where it is missing.
pub(crate) fn text(node: &Node, name: &str) -> String {
    node.attrs
        .get(name)
        .map(|value| value.as_str().into_owned())
        .unwrap_or_default()
}

/// An attribute as text, if it is there.
pub(crate) fn maybe_text(node: &Node, name: &str) -> Option<String> {
    node.attrs.get(name).map(|value| value.as_str().into_owned())
}

/// An attribute as an address.
pub(crate) fn jid(node: &Node, name: &str) -> Option<Jid> {
    node.attrs.get(name).and_then(|value| value.to_jid())
}

/// The content as bytes; empty where there is none.
pub(crate) fn bytes(node: &Node) -> Vec<u8> {
    match &node.content {
        Some(NodeContent::Bytes(bytes)) => bytes.to_vec(),
        Some(NodeContent::String(text)) => text.as_bytes().to_vec(),
        _ => Vec::new(),
    }
}

/// The bytes of a child.
pub(crate) fn child_bytes(node: &Node, tag: &str) -> Vec<u8> {
    node.get_optional_child(tag).map(bytes).unwrap_or_default()
}

/// The answer `result` to a query.
pub(crate) fn result(query: &Node, children: impl IntoIterator<Item = Node>) -> Node {
    let answer = NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("type", "result")
        .attr("id", text(query, "id"));
    let children: Vec<Node> = children.into_iter().collect();
    if children.is_empty() {
        answer.build()
    } else {
        answer.children(children).build()
    }
}

/// The answer `error` to a query.
pub(crate) fn error(query: &Node, code: u16, reason: &str, backoff_s: Option<u32>) -> Node {
    let mut error = NodeBuilder::new("error")
        .attr("code", code.to_string())
        .attr("text", reason);
    if let Some(backoff_s) = backoff_s {
        error = error.attr("backoff", backoff_s.to_string());
    }
    NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("type", "error")
        .attr("id", text(query, "id"))
        .children([error.build()])
        .build()
}

/// An element without attributes and children.
pub(crate) fn empty(tag: &'static str) -> Node {
    NodeBuilder::new(tag).build()
}

/// An element with bytes as content.
pub(crate) fn with_bytes(tag: &'static str, content: impl Into<Vec<u8>>) -> Node {
    NodeBuilder::new(tag).bytes(content).build()
}
