// Show the preset of CLEAR Upscale above what it sets. A page saves a node's values by their place, and
// the preset's is the last: files keep that order, so that older ones open here, and newer ones anywhere.
import { app } from "../../scripts/app.js"

const NODE = "CLEARUpscale"
const FIRST = "preset"

const isSaved = (widget) => widget.serialize !== false

function showFirst(node, preset) {
  const inFiles = node.widgets.filter(isSaved)
  const neutral = preset.value
  node.widgets.splice(node.widgets.indexOf(preset), 1)
  node.widgets.unshift(preset)

  const { onConfigure, onSerialize } = node
  node.onConfigure = function (info) {
    const values = info.widgets_values
    if (Array.isArray(values)) {
      preset.value = neutral // of files from before there was one
      inFiles.slice(0, values.length).forEach((widget, place) => (widget.value = values[place]))
    }
    return onConfigure?.call(this, info)
  }
  node.onSerialize = function (info) {
    if (Array.isArray(info.widgets_values)) {
      const later = node.widgets.filter((widget) => isSaved(widget) && !inFiles.includes(widget))
      info.widgets_values = [...inFiles, ...later].map((widget) => widget.value ?? null)
    }
    return onSerialize?.call(this, info)
  }
}

app.registerExtension({
  name: "clearattention.preset_first",
  nodeCreated(node) {
    const preset = node.comfyClass === NODE && node.widgets?.find((one) => one.name === FIRST)
    if (preset) showFirst(node, preset)
  },
})
