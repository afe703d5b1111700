// Make room for CLEAR's report on a node: the page gives such a text two lines, whatever it says.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const WIDGET = "$$node-text-preview"
const MARGIN_PX = 10 // around each widget of the canvas
const PADDING_PX = { x: 16, y: 8 } // within the text's own box
const MOST_PX = 200 // beyond it the page scrolls the text

const LINE_PX = 16 // of the text's 12 pixels

const pen = document.createElement("canvas").getContext("2d")

// Count the lines that a paragraph takes: words stay whole, and longer ones break anywhere.
function linesOf(paragraph, width) {
  let lines = 1
  let used = 0
  for (const word of paragraph.split(/(?<=\s)/)) {
    const room = pen.measureText(word.trimEnd()).width
    if (used + room > width && used) {
      lines += 1
      used = 0
    }
    lines += Math.max(0, Math.ceil(room / width) - 1)
    used = (used + pen.measureText(word).width) % width
  }
  return lines
}

// Return the height of a text in a node of some width.
function heightOf(text, nodeWidth) {
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`
  const width = Math.max(60, nodeWidth - 2 * (MARGIN_PX + PADDING_PX.x) - 8)
  const lines = text.split("\n").reduce((sum, line) => sum + linesOf(line, width), 0)
  return Math.min(MOST_PX, lines * LINE_PX + 2 * PADDING_PX.y) + 2 * MARGIN_PX
}

const letters = (some) => some.replace(/\s/g, "")

// Let words stay whole; the page breaks such texts anywhere.
function keepWords(text) {
  for (const box of document.querySelectorAll(".break-all"))
    if (letters(box.textContent) === letters(text))
      Object.assign(box.style, { wordBreak: "normal", overflowWrap: "anywhere" })
}

// In Nodes 2.0 some pages list the widgets of a node anew only until the first of them is changed; a
// text that comes later is on the node and not in sight. Told of the node once more, they list it.
function show(node, text) {
  if (!node) return
  const box = document.querySelector(`[data-node-id="${node.id}"]`)
  const inSight = !box || letters(box.textContent).includes(letters(text))
  if (!inSight) app.graph.onNodeAdded?.(node)
}

function fit(nodeId, text) {
  const node = app.graph?.getNodeById?.(nodeId) ?? app.graph?.getNodeById?.(Number(nodeId))
  const widget = node?.widgets?.find((one) => one.name === WIDGET)
  if (!widget || !node.type?.startsWith("CLEAR")) return
  let known = { width: 0, height: 0 }
  widget.options.getMinHeight = () => {
    const shown = String(widget.value)
    if (known.width !== node.size[0] || known.shown !== shown)
      known = { shown, width: node.size[0], height: heightOf(shown, node.size[0]) }
    return known.height
  }
  const needed = node.computeSize()[1]
  if (node.size[1] < needed) node.setSize([node.size[0], needed])
  node.setDirtyCanvas?.(true, true)
  keepWords(text)
  return node
}

app.registerExtension({
  name: "clearattention.report",
  setup() {
    api.addEventListener("progress_text", ({ detail }) => {
      // The page's own listener puts the text onto the node; its box is there a moment later.
      const { nodeId, text } = detail
      setTimeout(() => fit(nodeId, text), 0)
      setTimeout(() => show(fit(nodeId, text), text), 300)
      setTimeout(() => fit(nodeId, text), 600)
    })
  },
})
